"""The command `jaxcxr COMMAND ...`, the same as `python -m jaxcxr COMMAND ...`."""

import argparse
import importlib
import os
import sys

from jaxcxr.errors import RunError, UserError, did_you_mean

# command -> one line of help. `train` and `evaluate` are `jaxcxr.main` with a mode; every other is
# the file of its name in `jaxcxr/commands`, which has `add_arguments(parser)` and `run(args)`, and
# where `TAKES_CONFIG` is true finds `--config=F` and its overrides in `args.config`.
COMMANDS = {
    "train": "train, or resume, as the config says (--config=F --workdir=D)",
    "evaluate": "evaluate the best checkpoint of a workdir (--workdir=D), also on other --data",
    "prepare": "convert a data set into shards, once",
    "audit": "find leaks and shortcuts in data sets, images or not",
    "score": "score predictions of any model, with 95% intervals",
    "compare": "models or seeds on the same images, beyond chance?",
    "calibrate": "probabilities and thresholds, fitted on validation images",
    "relabel": "add the positives that out-of-fold networks see, train only",
    "prune": "drop closed heads of a trained model: a smaller run, same outputs",
    "bundle": "a trained model in one file: weights, classes, calibration, ...",
    "export": "the model of a bundle as StableHLO, ONNX or torch weights",
    "predict": "findings in radiographs, or 3D poses from 2D keypoints",
    "serve": "a bundle behind a local web page and a JSON API",
    "render": "3D poses to look at: html, gif, mp4",
    "stress": "how much worse a run gets as its input does, with curves",
    "report": "the page of a run anew, with what stress and explain add",
    "explain": "where a model of radiographs looks, scored against boxes",
    "plan": "memory and time of a step on a mesh of accelerators, without either",
    "bench": "measure the parts of a run, and of the library of attention",
    "study": "do a grid of configs x seeds x data sets, one table for each",
}
TRAINER = ("train", "evaluate")
# In these a program of the device runs again and again.
STEPPING = (*TRAINER, "bench", "explain", "predict", "relabel", "serve", "stress", "study")


def run(argv: list[str] | None = None) -> None:
    """Runs a command; a user's mistake ends it with one line and exit code 2.

    Arguments:
      argv: arguments without the program name; sys.argv's by default.
    """
    started, argv = argv is None, sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if argv else 2)
    name, rest = argv[0], argv[1:]
    if started and name in STEPPING:
        from jaxcxr.train import runtime

        runtime.restart_with_huge_pages()
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        print(f"jaxcxr: no command is called {name!r}.{hint}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)
    if name == "evaluate" and {"-h", "--help"} & set(rest):
        from jaxcxr import main

        print(f"{main.usage()}\n\nOn another data set, --data:\n")
        _run_command(name, ["--help"])
    if name in TRAINER and not (name == "evaluate" and _of_other_data(rest)):
        from jaxcxr import main

        main.run(["jaxcxr", *rest, f"--mode={name}"])
    else:
        _run_command(name, rest)


def _of_other_data(argv: list[str]) -> bool:
    """Tells whether `evaluate` is to use other data than the run's: a command of its own."""
    return any(word.partition("=")[0] == "--data" for word in argv)


def usage() -> str:
    """The list of commands."""
    rows = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    return f"usage: jaxcxr COMMAND ...\n\n{rows}\n\n`jaxcxr COMMAND --help` says more."


def _run_command(name: str, rest: list[str]) -> None:
    command = importlib.import_module(f"jaxcxr.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"jaxcxr {name}", description=COMMANDS[name])
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    command.add_arguments(parser)
    args, config_flags = parser.parse_known_args(rest)
    args.config = config_flags
    if config_flags and not getattr(command, "TAKES_CONFIG", False):
        parser.error(f"unrecognized arguments: {' '.join(config_flags)}")
    try:
        command.run(args)
        sys.stdout.flush()
    except (UserError, RunError) as error:
        if args.debug:
            raise
        print(f"jaxcxr: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except BrokenPipeError:  # who read the output has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    run()
