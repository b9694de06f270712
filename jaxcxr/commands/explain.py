"""`jaxcxr explain`: where a trained model of radiographs looks, and whether it means anything.

    jaxcxr explain --workdir=RUN
    jaxcxr explain --workdir=RUN --methods=all --images=200

Maps of findings in the test split, of the classes in turn, those with boxes where the data has
boxes. Each method is scored against the boxes (does the greatest value lie in one, overlap, share
of the map inside) and against the model (how fast the probability falls when what the map marks
goes, and rises when it comes), beside itself with random weights and beside two maps that know
nothing of the model: the center of the image, and noise. Intervals are bootstraps over patients.

Written are `explanations.json`, `.md` and `.png` in RUN/report or `--out`.
"""

import argparse
import contextlib
import functools
import pathlib

from jaxcxr.errors import UserError

_FEW = 100  # forward passes for an image up to which a method is a default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr explain`."""
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--split", default="test", choices=("validation", "test"), help="default: test"
    )
    parser.add_argument(
        "--images", type=int, default=64, metavar="N", help="findings to explain (default: 64)"
    )
    parser.add_argument(
        "--methods", default="", metavar="A,B",
        help="all, or some of the model's (default: those that cost up to "
        f"{_FEW} forward passes for an image)",
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default: RUN/report)")


def run(args: argparse.Namespace) -> None:
    """Draws, scores, prints and writes."""
    from jaxcxr.task import present
    from jaxcxr.train import finished
    from jaxcxr.train import workdir as workdir_lib
    from jaxcxr.xray.explain import explanation, faithfulness

    if args.images < 1:
        raise UserError(f"--images is {args.images}; give at least 1.")
    workdir = workdir_lib.parse(args.workdir)
    with finished.open_best(workdir, task="cxr") as run_:
        step, source = run_.step, present(run_.task.source(args.split), args.split, workdir)
        cases = faithfulness.choose(source, args.images)
        if not cases:
            raise UserError(f"the {args.split} split has no positive finding to explain.")
        result, figure = explanation.explain(
            run_.task, run_.model, run_.variables, source, cases, args.methods, _FEW,
            run_.config.seed, functools.partial(print, flush=True),
        )
        name = run_.config.model.name
    result = {
        "model": name, **result, "workdir": str(workdir), "split": args.split, "step": step,
    }
    if args.out:
        explanation.write(result, figure, pathlib.Path(args.out).expanduser())
    else:
        with contextlib.closing(workdir_lib.Local(workdir)) as local:
            explanation.write(result, figure, local.path / "report")
    print(explanation.to_text(result))
    print(f"written: {args.out or workdir / 'report'}/explanations.json, .md and .png")
