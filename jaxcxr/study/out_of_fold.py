"""Relabels a training split by networks that never saw the patient.

What it gave where networks are weak: docs/measuring.md.
"""

import csv
import json
import pathlib
from collections.abc import Callable

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.report.result_file import Table

_SEEDS = 2**31


def relabel(
    config, out: pathlib.Path, members: int, held_out: int, adjudicated: str | None,
    say: Callable[[str], None],
) -> Table | None:
    """Trains what is not trained yet, then relabels the training split.

    Arguments:
      members: networks, and folds.
      held_out: folds left out by each network.
      adjudicated: csv of expert labels, or None.

    Returns:
      The changes of each class; None when SIGTERM stopped a training.
    """
    from jaxcxr.data import preparation
    from jaxcxr.xray import relabeling as analysis
    from jaxcxr.xray.images import manifest

    rows = manifest.read(preparation.find_or_generate(config), "train")
    truth = None
    if adjudicated:  # read before anything is trained: it may be mistaken
        truth = analysis.read_adjudicated(adjudicated, rows.image_id.tolist(), rows.classes)
    configs = [member_config(config, k, members, held_out) for k in range(members)]
    scores = _out_of_fold_scores(configs, rows, out)
    if scores is None:
        return None
    new, summary = analysis.relabel(rows.labels, scores, rows.classes)
    analysis.write_labels(out / "labels.csv", rows.image_id.tolist(), new, rows.classes)
    analysis.write_changes(out / "changes.csv", rows, scores, new, summary)
    record = {
        "source": config.data.source, "images": len(rows), "members": members,
        "held_out": held_out, "fold_seed": config.seed, "classes": analysis.as_json(summary),
    }
    say(f"\n{config.data.source}, training split: {len(rows):,} images of "
        f"{len(np.unique(rows.patient_id)):,} patients\n{analysis.to_text(summary)}")
    if truth is not None:
        record["adjudicated"] = _compare(truth, rows.labels, new, say)
    (out / "summary.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    say(f"\nTo train on the new labels: --config.data.labels={out / 'labels.csv'}")
    return Table(
        analysis.COLUMNS, [analysis.cells(row) for row in summary],
        f"{config.data.source}, {members} members, {held_out} of the folds left out by each.",
    )


def _out_of_fold_scores(configs, rows, out: pathlib.Path) -> np.ndarray | None:
    """Mean scores `[training images, classes]`, members trained where they are not yet."""
    from jaxcxr import task
    from jaxcxr.train import checkpoint, loop, writers
    from jaxcxr.xray import relabeling as analysis

    members, screen = len(configs), writers.Screen()
    fold = analysis.folds(rows.patient_id, members, configs[0].data.fold_seed)
    empty = sorted(set(range(members)) - set(fold.tolist()))
    if empty:
        raise UserError(
            f"fold {empty[0]} of 0 to {members - 1} got none of the "
            f"{len(np.unique(rows.patient_id))} training patients; lower --members."
        )
    unlearned = [_unlearned(rows, fold, config.data.left_out) for config in configs]
    workdirs = [out / f"member_{k}" for k in range(members)]
    for folder, config in zip(workdirs, configs, strict=True):
        try:
            checkpoint.check_workdir(folder, config)
        except UserError as error:
            raise UserError(str(error).replace("another --workdir", "another --out")) from error
    scores, places = [], []
    for k, (folder, config) in enumerate(zip(workdirs, configs, strict=True)):
        left = np.flatnonzero(np.isin(fold, config.data.left_out))
        path = folder / "predictions" / "left_out.csv"
        numbers = ", ".join(map(str, config.data.left_out))
        screen.print(f"member {k + 1} of {members}: folds {numbers} left out, {len(left):,} images"
                     + (" scored already" if path.exists() else ""))
        if not path.exists() and not loop.train(config, folder, screen, task.LEFT_OUT):
            return None
        scores.append(_read_scores(path, rows.take(left), unlearned[k]))
        places.append(left)
    return analysis.average(scores, places, len(rows))


def _unlearned(rows, fold: np.ndarray, left_out) -> set[str]:
    """Names the classes that a member cannot learn, as the folds left out hold a label value."""
    from jaxcxr.xray.images import manifest

    seen = np.isin(fold, left_out, invert=True)
    unlearned = set(manifest.unlearned(rows.labels[seen], rows.classes))
    if len(unlearned) == len(rows.classes):
        raise UserError(
            f"without folds {', '.join(map(str, left_out))} no class has positive and negative "
            "training labels; lower --held-out, or change --members."
        )
    return unlearned


def _compare(truth, before: np.ndarray, after: np.ndarray, say) -> dict:
    """Says how both labels agree with the adjudicated ones; the same for the summary."""
    from jaxcxr.xray import relabeling as analysis

    old, new = (analysis.agreement(labels, truth) for labels in (before, after))
    say(f"\nadjudicated labels of {len(truth.rows):,} training images "
        f"({truth.listed:,} in the file)\n{analysis.agreement_text(old, new)}")
    return {
        name: dict(zip(("before", "after"), analysis.as_json([old[name], new[name]]), strict=True))
        for name in old
    }


def member_config(config, member: int, members: int, held_out: int):
    """The config of one member: its own seed, and the folds that it leaves out."""
    from jaxcxr import config as config_lib
    from jaxcxr.xray import relabeling as analysis

    changed = config.copy_and_resolve_references()
    changed.data.folds = members
    changed.data.fold_seed = config.seed
    changed.data.left_out = analysis.left_out(member, members, held_out)
    changed.seed = (config.seed + member) % _SEEDS
    config_lib.validate(changed)
    return changed


def _read_scores(path: pathlib.Path, rows, unlearned) -> np.ndarray:
    """Scores `[n, classes]` that a member left, for exactly these rows of the manifest.

    Those of classes that the member could not learn are NaN: unknown, which changes no label.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    columns = {name: f"score_{name}" for name in rows.classes if name not in unlearned}
    alike = [line["image_id"] for line in lines] == rows.image_id.tolist()
    if not alike or not lines[0].keys() >= set(columns.values()):
        raise UserError(
            f"{path} does not hold the images that its member leaves out: the data set is not the "
            f"one it was trained on. Give another --out, or remove {path.parents[1]}."
        )
    return np.array([
        [float(line[columns[name]]) if name in columns else np.nan for name in rows.classes]
        for line in lines
    ])
