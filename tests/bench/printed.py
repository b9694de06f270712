"""What benchmarks are told and what they print."""

import argparse

import jax

from jaxcxr.commands import bench
from jaxcxr.train import setup


def arguments(*words):
    """The parsed arguments of `jaxcxr bench`."""
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    args, args.config = parser.parse_known_args(words)
    return args


def number(text: str, name: str) -> float:
    """The number behind a name at the start of a line."""
    line = next(line for line in text.splitlines() if line.startswith(name))
    return float(line[len(name):].split()[0].rstrip("%").replace(",", ""))


def size_of(config):
    """Parameters of the model of a config."""
    params = jax.eval_shape(setup.make(config).init_variables)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))
