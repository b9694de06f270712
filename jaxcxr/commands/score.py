"""`jaxcxr score`: predictions of any framework against labels, with 95% intervals.

    jaxcxr score --labels Data_Entry_2017_v2020.csv --split-list test_list.txt \
        --predictions predictions.csv --out scores
    jaxcxr score --task pose --protocol vp3d-cpn --labels labels.npz \
        --predictions predictions.npz --out scores
    jaxcxr score --task keypoints --labels person_keypoints_val2017.json \
        --predictions results.json --out scores

With `--calibration` it adds what holds at the thresholds that were shipped, with `--groups` the
figures of subgroups. With `--task pose` the files hold 3D poses, with `--task keypoints` 2D
keypoints.
"""

import argparse
import math
import pathlib

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import protocols

_POSE = ("protocol", "sequence", "labels_unit", "predictions_unit", "compare")
_KEYPOINTS = ("category", "sigmas", "head_boxes", "origin")
_EPILOG = (
    "The labels are ChestX-ray14's Data_Entry csv, or a csv with a column of image ids, if "
    "possible one of patients, and one per class (1, 0; empty, -1 or n/a: unknown). The "
    "predictions have a column of image ids and one per class, with or without the prefix prob_ or "
    "score_. Images and classes match by name. Poses are .npz files with one array "
    "[frames, joints, 3] for each sequence, called subject/action/camera. 2D keypoints are COCO's "
    "or MPII's files."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr score`."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--task", choices=("cxr", "pose", "keypoints"), default="cxr", help="default: %(default)s"
    )
    parser.add_argument("--labels", required=True, metavar="FILE", help="the true labels")
    parser.add_argument("--predictions", required=True, metavar="FILE", help="the scores, or poses")
    parser.add_argument("--split-list", metavar="TXT", help="score these images only, one per line")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for metrics.json, .csv and .md"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--calibration", metavar="JSON", help="calibration.json, fitted on other images"
    )
    parser.add_argument(
        "--groups", metavar="CSV", help="sex, age, view, source of each image: figures of subgroups"
    )
    _add_pose_arguments(parser)
    _add_keypoint_arguments(parser)


def _add_pose_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("poses (--task pose)")
    group.add_argument("--protocol", metavar="NAME", help=", ".join(protocols.PROTOCOLS))
    group.add_argument("--sequence", metavar="KEY", help="which subject/action/camera a .npy is of")
    for name in ("labels", "predictions"):
        group.add_argument(
            f"--{name}-unit", choices=("m", "mm"),
            help=f"of the {name}; default: as the file says, or else the protocol's",
        )
    group.add_argument(
        "--compare", nargs="+", default=[], metavar="JSON",
        help="metrics.json of other results of the protocol, to stand in one table",
    )


def _add_keypoint_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("2D keypoints (--task keypoints)")
    group.add_argument("--category", metavar="NAME", help="COCO: score this category only")
    group.add_argument(
        "--sigmas", metavar="LIST", help="COCO: standard deviations of the joints, as in "
        "0.026,0.025,...; default: COCO's, of its 17"
    )
    group.add_argument("--head-boxes", metavar="MAT", help="MPII: file with the boxes of heads")
    group.add_argument(
        "--origin", type=int, choices=(0, 1),
        help="MPII: number of the first pixel in the predictions (default: 1)",
    )


def run(args: argparse.Namespace) -> None:
    """Scores, writes metrics.json, .csv and .md, prints the tables."""
    if args.resamples < 1 or args.seed < 0:
        raise UserError("--resamples must be at least 1 and --seed at least 0")
    _check_task(args)
    score = {"cxr": _score_xrays, "pose": _score_poses, "keypoints": _score_keypoints}
    print(score[args.task](args))


def _score_xrays(args: argparse.Namespace) -> str:
    from jaxcxr.xray.report import xray_results

    return xray_results.score_files(
        args.labels, args.predictions, pathlib.Path(args.out), split_list=args.split_list,
        calibration=args.calibration, groups=args.groups, resamples=args.resamples, seed=args.seed,
    )


def _score_poses(args: argparse.Namespace) -> str:
    from jaxcxr.pose.evaluation import score_poses

    if args.protocol is None:
        raise UserError(f"--protocol is missing; name one of {', '.join(protocols.PROTOCOLS)}")
    return score_poses.score_files(
        args.labels, args.predictions, pathlib.Path(args.out), protocols.get(args.protocol),
        sequence=args.sequence, labels_unit=args.labels_unit,
        predictions_unit=args.predictions_unit, others=args.compare, resamples=args.resamples,
        seed=args.seed,
    )


def _score_keypoints(args: argparse.Namespace) -> str:
    from jaxcxr.pose.evaluation import score_keypoints

    return score_keypoints.score_files(
        args.labels, args.predictions, pathlib.Path(args.out), split_list=args.split_list,
        category=args.category, sigmas=_sigmas(args.sigmas), head_boxes=args.head_boxes,
        origin=args.origin, resamples=args.resamples, seed=args.seed,
    )


def _check_task(args: argparse.Namespace) -> None:
    """Refuses options of another task, which would do nothing."""
    if args.task == "pose" and args.split_list:
        raise UserError("--split-list is of radiographs; of poses the protocol says what is scored")
    for name in ("calibration", "groups"):
        if args.task != "cxr" and getattr(args, name):
            raise UserError(f"--{name} is of radiographs; leave it out")
    given = [name for name in _POSE if getattr(args, name)]
    if args.task != "pose" and given:
        option = given[0].replace("_", "-")
        raise UserError(f"--{option} is of poses; add --task pose, or leave it out")
    given = [name for name in _KEYPOINTS if getattr(args, name) is not None]
    if args.task != "keypoints" and given:
        option = given[0].replace("_", "-")
        raise UserError(f"--{option} is of 2D keypoints; add --task keypoints, or leave it out")


def _sigmas(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(word) for word in text.split(",")) if text else ()
    except ValueError:
        values = (math.nan,)
    if not all(0 < value < math.inf for value in values):
        raise UserError(f"--sigmas {text}: numbers above 0 are wanted, with commas between them")
    return values
