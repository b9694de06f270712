"""`jaxcxr bench WHAT`: what the parts of a run cost, each beside the least it could cost.

    jaxcxr bench input --config=F --seconds 5
    jaxcxr bench attention

Every comparison alternates its sides within one run, and the median of the ratios is printed,
because the speed of a shared machine drifts. `jaxcxr.bench` has a module for each benchmark, which
says what is measured. `--json FILE` also writes the table as a file that `docs/tables.py` reads.
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable

from jaxcxr.commands import add_json, write_json
from jaxcxr.errors import UserError
from jaxcxr.report.result_file import Table

TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one sub-command per benchmark, with its own options."""
    commands = parser.add_subparsers(
        dest="what", required=True, metavar="WHAT", parser_class=_BenchParser
    )
    for name, bench in BENCHES.items():
        commands.add_parser(name, help=bench.text, description=bench.text).what = name


def run(args: argparse.Namespace) -> None:
    """Measures and prints; writes the result file that `--json` names."""
    flags, bench = getattr(args, "config", []), BENCHES[args.what]
    if flags and not bench.takes_config:
        raise UserError(
            f"bench {args.what} has no {' '.join(flags)}; see `jaxcxr bench {args.what} --help`."
        )
    write_json(args, bench.run(args))


class _BenchParser(argparse.ArgumentParser):
    """Parser of one benchmark, which imports what its options need only when it is chosen."""

    what = ""

    def parse_known_args(self, args=None, namespace=None):
        # Also here, so that it may stand after the name of the benchmark.
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                          help="show tracebacks")
        add_json(self)
        BENCHES[self.what].add_arguments(self)
        return super().parse_known_args(args, namespace)


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each round")
    parser.add_argument("--raw", metavar="DIR", help="the original images: loops over them too")


def _run_input(args: argparse.Namespace) -> Table:
    from jaxcxr import main
    from jaxcxr.bench import input_bench

    config = main.load_config(args.config)
    others = input_bench.originals(args.raw, config) if args.raw else {}
    return input_bench.bench_input(config, args.seconds, others)


def _add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=5.0,
                        help="time of each side in three rounds")


def _run_step(args: argparse.Namespace) -> Table:
    begun = time.perf_counter()
    from jaxcxr import main
    from jaxcxr.bench import train_bench

    return train_bench.bench_step(main.load_config(args.config), args.seconds, begun)


def _add_attention(parser: argparse.ArgumentParser) -> None:
    from jaxcxr.bench.attention_bench import KINDS, SIZES

    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N",
                        help="tokens: a class token and patches where N - 1 is a square, else "
                        "frames (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND",
                        help=f"any of {', '.join(KINDS)}, or what a config's `attention` may be "
                        "(default: those named)")
    parser.add_argument("--dim", type=int, default=256, help="width of the tokens")
    parser.add_argument("--heads", type=int, default=8, help="number of heads")
    parser.add_argument("--batch", type=int, default=1, help="sequences at a time")
    parser.add_argument("--seconds", type=float, default=1.0,
                        help="time of the rounds of each kind, size and pass; three times as long "
                        "for what the library promises")
    parser.add_argument("--bars", action=argparse.BooleanOptionalAction, default=True,
                        help="measure what the library promises")


def _run_attention(args: argparse.Namespace) -> Table:
    from jaxcxr.bench import attention_bench
    from jaxcxr.bench.attention_layers import Tokens

    tokens = [Tokens(n, args.dim, args.heads, args.batch) for n in args.sizes]
    return attention_bench.bench_attention(tokens, args.kinds, args.seconds, args.bars)


def _add_complexity(parser: argparse.ArgumentParser) -> None:
    from jaxcxr.bench.attention_bench import GROWING, MEMBERS
    from jaxcxr.bench.attention_layers import PASSES

    parser.add_argument("--sizes", type=int, nargs="+", default=GROWING, metavar="N",
                        help="tokens, at least two sizes (default: %(default)s)")
    parser.add_argument("--members", nargs="+", default=list(MEMBERS), metavar="KIND",
                        help="what a config's `attention` may be (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=64, help="width of the tokens")
    parser.add_argument("--heads", type=int, default=4, help="number of heads")
    parser.add_argument("--pass", dest="pass_", choices=PASSES, default="training",
                        help="forward, or training: forward and backward (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5,
                        help="time of the rounds of each member and size; 0 for no times")
    parser.add_argument("--most-memory", type=float, default=8.0, metavar="GB",
                        help="do not run, but compile only, what needs more (default: %(default)s)")


def _run_complexity(args: argparse.Namespace) -> Table:
    from jaxcxr.bench import attention_bench
    from jaxcxr.bench.attention_layers import Tokens

    sizes = sorted(set(args.sizes))
    if len(sizes) < 2:
        raise UserError("an exponent needs at least two sizes; give --sizes N N ...")
    tokens = [Tokens(n, args.dim, args.heads) for n in sizes]
    return attention_bench.bench_complexity(
        tokens, args.members, args.pass_, args.seconds, args.most_memory * 1e9
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--attention", action="append", metavar="KIND",
                        help="what a config's `attention` may be; repeat it for several (default: "
                        "the config's own and every kind that fits); plain heads come first")
    parser.add_argument("--measure", action="store_true", help="also time one layer")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of --measure")


def _run_models(args: argparse.Namespace) -> Table:
    from jaxcxr import main
    from jaxcxr.bench import models_bench

    config = main.load_config(args.config)
    return models_bench.bench_models(config, args.attention, args.rounds if args.measure else 0)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=30.0, help="time of all rounds together")
    parser.add_argument("--model", metavar="NAME", help="another model than the config's, as it is")


def _run_train(args: argparse.Namespace) -> Table:
    from jaxcxr import config as config_lib
    from jaxcxr import main
    from jaxcxr.bench import train_bench
    from jaxcxr.train import runtime

    runtime.enable_cache()
    config = main.load_config(args.config)
    if args.model:
        config_lib.set_model(config, args.model)
        config_lib.validate(config)
    *_, table = train_bench.bench_train(train_bench.open_run(config), args.seconds)
    return table


def _add_stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=pathlib.Path, metavar="RUN",
                        help="a trained run: also its errors at each latency")
    parser.add_argument("--seconds", type=float, default=5.0, help="time of each row")


def _run_stream(args: argparse.Namespace) -> Table:
    from jaxcxr import main
    from jaxcxr.bench import stream_bench
    from jaxcxr.train import finished

    given = getattr(args, "config", [])
    if args.workdir is None or given:
        config = main.load_config(given)
    else:
        config = finished.load_config(args.workdir)
    return stream_bench.bench_stream(config, args.workdir, args.seconds)


@dataclasses.dataclass(frozen=True)
class _Bench:
    """One benchmark.

    Attributes:
      text: one line of help.
      add_arguments: adds its options.
      run: measures and prints, and returns what it printed.
      takes_config: whether `--config=FILE[:ARG]` and its overrides are as for training.
    """

    text: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Table]
    takes_config: bool = True


BENCHES = {
    "input": _Bench(
        "examples/s of the pipeline and of a bare loop (--config=F)", _add_input, _run_input
    ),
    "step": _Bench(
        "time of a step of the loop and of the bare step (--config=F)", _add_step, _run_step
    ),
    "attention": _Bench(
        "FLOPs and time of each kind of attention head", _add_attention, _run_attention, False
    ),
    "complexity": _Bench(
        "FLOPs, time and memory of attention as n grows", _add_complexity, _run_complexity, False
    ),
    "models": _Bench(
        "a transformer with each kind of attention (--config=F)", _add_models, _run_models
    ),
    "train": _Bench("examples/s and MFU of training (--config=F)", _add_train, _run_train),
    "stream": _Bench(
        "a pose model frame by frame (--config=F, --workdir=RUN)", _add_stream, _run_stream
    ),
}
