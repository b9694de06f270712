"""`jaxcxr bench WHAT`: what the parts of a run cost, each beside the least it could cost.

Every comparison alternates its sides within one run, and the median of the ratios is printed,
because the speed of a shared machine drifts.
"""

import argparse
import importlib

from jaxcxr.errors import UserError

# name -> (module with add_arguments(parser) and run(args), one line of help); a module that has
# TAKES_CONFIG = True finds `--config=F` and its overrides in `args.config`
BENCHES = {
    "input": ("jaxcxr.bench.input_bench", "examples/s of the pipeline and of a bare loop (--config=F)"),
    "step": ("jaxcxr.bench.step_bench", "time of a step of the loop and of the bare step (--config=F)"),
    "encoding": ("jaxcxr.bench.encoding", "bytes and time of a radiograph in each encoding"),
    "prepare": ("jaxcxr.bench.prepare_bench", "images/s of a preparation and of a bare loop"),
    "attention": ("jaxcxr.bench.attention_bench", "FLOPs and time of each kind of attention head"),
    "complexity": ("jaxcxr.bench.complexity", "FLOPs, time and memory of attention as n grows"),
    "models": ("jaxcxr.bench.models_bench", "a transformer with each kind of attention (--config=F)"),
    "train": ("jaxcxr.bench.train_bench", "examples/s and MFU of training, beside torch (--config=F)"),
    "guard": ("jaxcxr.bench.guard_bench", "what the guard of a bundle flags (--model=BUNDLE)"),
    "predict": ("jaxcxr.bench.predict_bench", "files/s of predict and of the bare model"),
    "serve": ("jaxcxr.bench.serve_bench", "answers/s and latency of a running serve, by clients"),
    "stream": ("jaxcxr.bench.stream_bench", "a pose model frame by frame (--config=F, --workdir=RUN)"),
}
TAKES_CONFIG = True


class _BenchParser(argparse.ArgumentParser):
    """Parser of one benchmark; its module is not imported before it is chosen."""

    what = ""

    def parse_known_args(self, args=None, namespace=None):
        # Also here, so that it may stand after the name of the benchmark.
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                          help="show tracebacks")
        _module(self.what).add_arguments(self)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one sub-command per benchmark, with its own options."""
    commands = parser.add_subparsers(
        dest="what", required=True, metavar="WHAT", parser_class=_BenchParser
    )
    for name, (_, text) in BENCHES.items():
        commands.add_parser(name, help=text, description=text).what = name


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
      UserError: an option that the benchmark does not have, a mistake in the config, or data that
        are missing.
    """
    module = _module(args.what)
    config = getattr(args, "config", [])
    if config and not getattr(module, "TAKES_CONFIG", False):
        raise UserError(
            f"bench {args.what} has no {' '.join(config)}; see `jaxcxr bench {args.what} --help`."
        )
    module.run(args)


def _module(name: str):
    return importlib.import_module(BENCHES[name][0])
