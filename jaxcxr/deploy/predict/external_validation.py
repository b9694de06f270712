"""Evaluates a trained model of radiographs on a prepared data set that it was not made for."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from jaxcxr.data import label_tables, preparation
from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.errors import UserError, some
from jaxcxr.train import finished, loop
from jaxcxr.xray import task as xray_task
from jaxcxr.xray.evaluation import calibration
from jaxcxr.xray.images import image_files, manifest, radiographs
from jaxcxr.xray.report import xray_results

NAME = "external.json"
_BATCH = 256  # images of a bundle in memory at once


def prepared(path: str) -> pathlib.Path:
    """Finds a prepared data set of radiographs: its folder, its manifest or its variant's folder.

    Raises:
      UserError: there is none.
    """
    folder = pathlib.Path(path).expanduser()
    folder = folder.parent if folder.name == manifest.NAME else folder
    found = [folder, *sorted(folder.glob("*/"))]
    found = [place for place in found if (place / manifest.NAME).is_file()]
    if len(found) != 1:
        raise UserError(
            f"--data {path} is no prepared data set of radiographs; give the folder that jaxcxr "
            f"prepare prints, with {manifest.NAME} in it."
        )
    return found[0]


def evaluate_run(
    workdir: epath.Path, data: str, split: str, out: pathlib.Path | None,
    say: Callable[[str], None], equalized: str = "",
) -> str:
    """Evaluates the best checkpoint of a run, whose own data need not be there.

    Arguments:
      workdir: folder of the run.
      data: prepared data set, see `prepared`.
      split: "train", "validation", "test", "all", or "": test, or all where there is no test.
      out: folder to write to; None: `external/NAME` of the run.
      say: gets remarks.
      equalized: how the images were equalised, for data that do not record it.

    Returns:
      Tables for the screen.

    Raises:
      UserError: no such run or data, no class in common, or data prepared otherwise.
    """
    directory = prepared(data)
    config = finished.load_config(workdir, "cxr")
    facts = json.loads((workdir / "config.json").read_text()).get("data", {})
    if not facts.get("classes"):
        raise UserError(f"{workdir} does not name its classes; give its bundle with --model.")
    classes = tuple(facts["classes"])
    _check_equalized(directory, config.data.options.get("equalize", "none"), equalized)
    splits = _splits(directory, split, say)
    of = [
        radiographs.Radiographs(directory, name, config.data.image_size, classes=classes)
        for name in splits
    ]
    opened = xray_task.XrayTask(config, lambda name: of[0])
    with finished.open_best(workdir, config=config, opened=opened) as run:
        scores = [loop.predict(run.setup, run.variables, part)["scores"] for part in of]
        step = run.step
    _say_copies(config, of, say)
    fitted = workdir / calibration.NAME
    about = {"run": str(workdir), "step": step}
    return _report(
        directory, splits, classes, np.concatenate(scores),
        calibration.Calibration.load(fitted) if fitted.exists() else None,
        out or pathlib.Path(workdir) / "external" / _title(directory), about, say,
    )


def evaluate_bundle(
    path: str, data: str, split: str, out: pathlib.Path | None, say: Callable[[str], None],
    equalized: str = "",
) -> str:
    """Evaluates a bundle; arguments and errors as of `evaluate_run`."""
    directory, bundle = prepared(data), Bundle.load(path)
    if bundle.task != "cxr":
        raise UserError(f"{path} is a bundle of the task {bundle.task!r}; this needs 'cxr'.")
    _check_equalized(directory, bundle.preprocessing.equalize, equalized)
    splits = _splits(directory, split, say)
    logits = []
    for name in splits:
        source = radiographs.Radiographs(directory, name, bundle.image_size)
        for begin in range(0, len(source), _BATCH):
            rows = np.arange(begin, min(begin + _BATCH, len(source)))
            logits.append(bundle.logits(source.read(rows)["image"][..., 0]))
    say(bundle.description)
    _say_same(bundle, directory, splits, say)
    default = pathlib.Path(f"{bundle.path.stem}_on_{_title(directory)}")
    return _report(
        directory, splits, bundle.classes, calibration.sigmoid(np.concatenate(logits)),
        bundle.calibration, out or default, {"bundle": bundle.digest}, say,
    )


def _title(directory: pathlib.Path) -> str:
    return "_".join(directory.resolve().parts[-3:-1])


def _splits(directory: pathlib.Path, split: str, say) -> list[str]:
    """Returns the splits to evaluate, none of them empty."""
    found = manifest.read(directory).split
    there = [name for name in manifest.SPLITS if (found == name).any()]
    chosen = split or ("test" if "test" in there else "all")
    if chosen == "all":
        chosen_splits = there
    else:
        chosen_splits = [name for name in there if name == chosen]
    if not chosen_splits:
        raise UserError(
            f"{directory} has no {chosen} split; it has {', '.join(there) or 'no image'}."
        )
    counts = ", ".join(f"{name} {(found == name).sum():,}" for name in chosen_splits)
    say(f"{directory}: images of {counts}")
    return chosen_splits


def _check_equalized(directory: pathlib.Path, expected: str, told: str) -> None:
    """Refuses data whose gray values were equalised otherwise than the model's.

    Arguments:
      told: the equalisation by the user, where the data do not record it; or "".
    """
    recorded = radiographs.equalization(directory)
    found = recorded or told
    if not found:
        raise UserError(
            f"{directory} does not record how its images were equalised; tell it with --equalized "
            f"{', '.join(image_files.EQUALIZE[:-1])} or {image_files.EQUALIZE[-1]}."
        )
    if recorded and told and recorded != told:
        raise UserError(f"{directory} records equalize={recorded}, not {told}; leave --equalized.")
    if found != expected:
        raise UserError(
            f"{directory} was prepared with equalize={found}, but the model expects {expected}; "
            f"prepare it anew with --equalize {expected}."
        )


def _say_copies(config, of: Sequence[radiographs.Radiographs], say) -> None:
    """Says how many of the images are training images of the run, where its data are there."""
    try:
        directory = preparation.find(
            config.data.source, dict(config.data.options), config.data.dir or None
        )
        train = set(manifest.read(directory, "train").sha256.tolist()) - {""}
    except UserError:
        say("whether the run was trained on some of these images is not known: its data are gone")
        return
    copies = [
        name for part in of
        for name, digest in zip(part.manifest.image_id, part.manifest.sha256, strict=True)
        if digest in train
    ]
    if copies:
        say(f"warning: the run was trained on {len(copies)} of these images: {some(copies)}")


def _say_same(bundle: Bundle, directory: pathlib.Path, splits: Sequence[str], say) -> None:
    """Says whether these are the bundle's own data; it has no list of its training images."""
    own = bundle.facts["training"].get("manifest", {}).get("sha256")
    if hashlib.sha256((directory / manifest.NAME).read_bytes()).hexdigest() != own:
        say("whether the model was trained on some of these images is not known: a bundle does "
            "not list its training images")
    elif "train" in splits:
        say("warning: the model was trained on the training split of these very data")


def _report(
    directory: pathlib.Path, splits: Sequence[str], classes: tuple[str, ...], scores: np.ndarray,
    fitted: calibration.Calibration | None, out: pathlib.Path, about: dict[str, Any], say,
) -> str:
    """Writes predictions and metrics of the classes in common; returns tables for the screen."""
    rows = manifest.from_table(
        pa.concat_tables([manifest.to_table(manifest.read(directory, name)) for name in splits])
    )
    pairs = label_tables.match_classes(classes, rows.classes)
    if not pairs:
        raise UserError(
            f"no class of the model ({some(classes)}) is one of {directory} "
            f"({some(rows.classes)}); prepare the data with --classes MODEL'S_NAME=..."
        )
    only = {
        "model_only": [name for name in classes if name not in pairs],
        "data_only": [name for name in rows.classes if name not in pairs.values()],
    }
    for names, fact in zip(
        only.values(), ("of the model have no labels in these data",
                        "of these data are no output of the model"), strict=True,
    ):
        if names:
            say(f"{len(names)} classes {fact} and are left out: {some(names)}")
    renamed = [f"{theirs} as {name}" for name, theirs in pairs.items() if name != theirs]
    if renamed:
        say(f"taken for the same: {some(renamed)}")
    kept = rows.of_classes(list(pairs.values())).renamed(tuple(pairs))
    scores = scores[:, [classes.index(name) for name in pairs]]
    try:
        (out / "report").mkdir(parents=True, exist_ok=True)
        if fitted is not None:
            fitted.select(kept.classes).save(out / calibration.NAME)
        table = xray_results.write_metrics(kept, scores, out)
        title = splits[0] if len(splits) == 1 else "all"
        xray_results.write_scores(kept, scores, out / "predictions" / f"{title}.csv")
        record = {"data": str(directory), "splits": splits, "classes": pairs, **only, **about}
        text = json.dumps(record, indent=1, ensure_ascii=False)
        (out / NAME).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}).") from error
    return f"{table}\nWritten: {out}/report, {out}/predictions, {out}/{NAME}"
