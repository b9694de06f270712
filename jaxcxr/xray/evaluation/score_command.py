"""`jaxcxr score`: predictions of any framework against labels, with 95% intervals.

    jaxcxr score --labels Data_Entry_2017_v2020.csv --split-list test_list.txt \
        --predictions predictions.csv --out scores

With `--calibration` it adds what holds at the thresholds that were shipped, with `--groups` the
figures of subgroups. With `--task pose` the files hold 3D poses, see `jaxcxr.pose.evaluation.score_poses`;
with `--task keypoints` 2D keypoints, see `score_keypoints`.
"""

import argparse
import pathlib

import jaxcxr
from jaxcxr.errors import UserError, some
from jaxcxr.pose.evaluation import score_keypoints, score_poses
from jaxcxr.xray.evaluation import calibration_fit, metrics_table, scored_files, subgroups
from jaxcxr.xray.evaluation.calibration import Calibration

_EPILOG = (
    "The labels are ChestX-ray14's Data_Entry csv, or a csv with a column of image ids, if "
    "possible one of patients, and one per class (1, 0, empty: unknown). The predictions have a "
    "column of image ids and one per class, with or without the prefix prob_ or score_. Images and "
    "classes match by name. Poses are .npz files with one array [frames, joints, 3] for each "
    "sequence, called subject/action/camera. 2D keypoints are COCO's or MPII's files."
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
    score_poses.add_arguments(parser)
    score_keypoints.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Scores, writes metrics.json, .csv and .md, prints the tables.

    Raises:
      UserError: an option is out of range, a file is not as `score_files` wants it, or the folder
        cannot be written.
    """
    if args.resamples < 1 or args.seed < 0:
        raise UserError("--resamples must be at least 1 and --seed at least 0")
    _check_task(args)
    if args.task == "pose":
        score_poses.run(args)
        return
    if args.task == "keypoints":
        score_keypoints.run(args)
        return
    joined = scored_files.join(args.labels, args.predictions, args.split_list)
    calibration = None
    if args.calibration:
        calibration = Calibration.load(args.calibration).select(joined.classes)
        calibration_fit.checked_scores(joined, args.predictions)
    attributes = {}
    if args.groups:
        attributes = subgroups.read(args.groups, joined.ids, args.labels)
    result = metrics_table.score(
        joined.labels, joined.scores, joined.classes, joined.patients, args.resamples, args.seed,
        calibration,
    )
    result["counts"] |= {
        "predictions_ignored": joined.ignored, "listed_without_labels": len(joined.unlabelled),
    }
    result["classes"] = {
        "scored": joined.classes,
        "labels_without_predictions": joined.labels_only,
        "predictions_without_labels": joined.predictions_only,
    }
    result |= {"inputs": joined.inputs, "jaxcxr_version": jaxcxr.__version__}
    out = pathlib.Path(args.out)
    metrics_table.write(result, out)
    print(metrics_table.to_text(result))
    written = [out / f"metrics.{ending}" for ending in ("json", "csv", "md")]
    if attributes:
        written += _groups(joined, calibration, attributes, args, out)
    for remark in _remarks(joined, calibration):
        print(remark)
    print(f"Written: {', '.join(map(str, written))}")


def _groups(joined, calibration: Calibration | None, attributes, args, out: pathlib.Path):
    """Writes and prints the figures of subgroups; returns the files."""
    found = None
    if calibration is not None:
        found = calibration.findings(calibration.from_scores(joined.scores))
    rows = subgroups.rows(
        joined.labels, joined.scores, joined.classes, joined.patients, attributes, found,
        args.resamples, args.seed,
    )
    if not rows:
        print(f"{args.groups}: every attribute has one value only; there are no groups to compare")
    else:
        print(f"\n{subgroups.to_text(rows)}\n")
    return subgroups.write(rows, out)


def _check_task(args: argparse.Namespace) -> None:
    """Refuses options of the other task, which would do nothing."""
    if args.task == "pose" and args.split_list:
        raise UserError("--split-list is of radiographs; of poses the protocol says what is scored")
    for name in ("calibration", "groups"):
        if args.task != "cxr" and getattr(args, name):
            raise UserError(f"--{name} is of radiographs; leave it out")
    given = [name for name in score_poses.OPTIONS if getattr(args, name)]
    if args.task != "pose" and given:
        option = given[0].replace("_", "-")
        raise UserError(f"--{option} is of poses; add --task pose, or leave it out")
    given = [name for name in score_keypoints.OPTIONS if getattr(args, name) is not None]
    if args.task != "keypoints" and given:
        option = given[0].replace("_", "-")
        raise UserError(f"--{option} is of 2D keypoints; add --task keypoints, or leave it out")


def _remarks(joined: scored_files.Joined, calibration: Calibration | None) -> list[str]:
    if calibration is None:
        remarks = ["F1max and its threshold are fitted on these very images, and so optimistic."]
    else:
        remarks = calibration_fit.remarks(calibration)
    if joined.patients is None:
        remarks.append(
            "The labels name no patients: each image counts as its own, and the intervals are too "
            "narrow if some show the same patient."
        )
    for names, fact in (
        (joined.labels_only, "classes of the labels have no prediction and are left out"),
        (joined.predictions_only, "classes of the predictions have no labels and are left out"),
        (joined.unlabelled, "images of the split list have no label and are left out"),
    ):
        if names:
            remarks.append(f"{len(names)} {fact}: {some(names)}")
    if joined.ignored:
        remarks.append(f"{joined.ignored} predictions are of images that are not scored: ignored")
    return remarks
