"""Makes a bundle from the best checkpoint of a run."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from jaxcxr import __version__
from jaxcxr.data import preparation
from jaxcxr.deploy import pose_runs
from jaxcxr.deploy.bundle import archive
from jaxcxr.deploy.bundle.bundled_model import Bundle, flat_weights
from jaxcxr.deploy.bundle.guard import Guard
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.report import curves
from jaxcxr.train import finished
from jaxcxr.xray.evaluation import calibration, calibration_fit
from jaxcxr.xray.images import manifest

TRAINING_IMAGES = 4000  # at most, to fit the guard on
_HELD_OUT = 5  # every so many training images set the guard's threshold, without validation
NO_LICENCE = (
    "No licence is stated: ask who made this bundle. The licences of the training data apply.\n"
)


def make(
    workdir: pathlib.Path, out: pathlib.Path, licence: str, say: Callable[[str], None]
) -> Bundle:
    """Writes the bundle of a run and reads it back.

    Arguments:
      workdir: folder of the run.
      out: file to write.
      licence: text of the licence of the weights, "" if none is stated.
      say: gets a line for each step.

    Raises:
      UserError: no run, no checkpoint, no metrics of its test split, or absent data.
    """
    config = finished.load_config(workdir)
    saved = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    files = _radiographs if config.task == "cxr" else _poses
    facts, contents = files(config, workdir, say)
    facts |= {
        "task": config.task, "model": config.model.name,
        "versions": {key: saved[key] for key in ("python", "packages", "git") if key in saved},
        "made_with": f"jaxcxr {__version__}",
    }
    facts["training"] |= {
        "run": workdir.resolve().name, "source": config.data.source,
        "options": json.loads(config.data.options.to_json_best_effort()),
    }
    contents |= {
        "config.json": _json(saved["config"]),
        "metrics.json": _json(_metrics(workdir, facts["training"])),
        "LICENSE.txt": (licence or NO_LICENCE).encode(),
    }
    archive.write(out, facts, contents)
    return Bundle.load(out)


def _radiographs(config, workdir, say) -> tuple[dict, dict[str, bytes]]:
    """Collects facts and files of a run of radiographs."""
    with finished.open_best(workdir, config=config) as run:
        step, variables = run.step, jax.device_get(run.variables)
    options = config.data.options
    preprocessing = {
        "stored_size": int(options.get("size", config.data.image_size)),
        "equalize": options.get("equalize", "none"), "image_size": config.data.image_size,
        **dict(zip(("mean", "std"), run.task.expects.gray, strict=True)),
    }
    listed = preparation.find_or_generate(config) / manifest.NAME
    facts = {
        "classes": list(run.task.classes), "preprocessing": preprocessing,
        "training": {
            "step": step, **_data(run.task), "labels": run.task.facts()["labels"],
            "manifest": {"file": listed.name, "sha256": _sha256(listed)},
        },
    }
    fitted, guard = _fitted(run, variables, facts, workdir, say)
    return facts, {
        "weights.safetensors": safetensors.numpy.save(flat_weights(variables)),
        "calibration.json": _json(fitted.to_json()),
        "guard.safetensors": guard.to_bytes(),
    }


def _data(task) -> dict[str, dict[str, int]]:
    rows = {split: task.source(split).manifest for split in manifest.SPLITS}
    return {
        "images": {split: len(part) for split, part in rows.items()},
        "patients": {split: len(np.unique(part.patient_id)) for split, part in rows.items()},
    }


def _fitted(run, variables, facts, workdir, say) -> tuple[calibration.Calibration, Guard]:
    """Fits the guard, and takes the calibration of the run or fits one."""
    unfinished = Bundle(
        path=workdir, facts=facts, config=run.config, variables=variables, metrics={}, licence="",
        calibration=None, guard=None, digest="",
    )
    train, validation = (run.task.source(split) for split in ("train", "validation"))
    count = min(len(train), TRAINING_IMAGES)
    index = np.unique(np.linspace(0, len(train) - 1, count, dtype=int))
    held, rows, kind = validation, np.arange(len(validation)), "validation images"
    if not len(validation):
        held, rows = train, index[::_HELD_OUT]
        index = np.setdiff1d(index, rows) if len(index) > len(rows) + 1 else index
        kind = "other training images, as there is no validation split"
    seen = []
    for source, places in ((train, index), (held, rows)):
        pixels = source.read(places)["image"][..., 0]
        seen.append((pixels, *unfinished.outputs(pixels)))
    guard = Guard.fit(*((pixels, features) for pixels, _, features in seen))
    say(f"guard: fitted on {len(index):,} training images, threshold {guard.threshold:.3f} keeps "
        f"99 % of {len(rows):,} {kind}")
    path, step = workdir / calibration.NAME, facts["training"]["step"]
    if path.exists():
        fitted = calibration.Calibration.load(path).select(run.task.classes)
        of = fitted.about.get("step", step)
        if of != step:
            raise UserError(
                f"{path} was fitted on the checkpoint of step {of}, but the best is that of step "
                f"{step}; run `jaxcxr evaluate --workdir={workdir}` first."
            )
        say(f"calibration: {path}")
        return fitted, guard
    logits = seen[1][1][: len(validation)]
    fitted = calibration_fit.fit_split(
        validation.manifest, calibration.sigmoid(logits), run.config.calibration,
        {"step": step, "source": run.config.data.source},
    )
    say(f"calibration: fitted on {len(validation):,} validation images, as the run has no "
        f"{calibration.NAME}" if len(validation) else
        "calibration: none, as there is no validation split; thresholds are 0.5")
    return fitted, guard


def _poses(config, workdir, say) -> tuple[dict, dict[str, bytes]]:
    """Collects facts and files of a run of poses; its prepared data may be absent."""
    fps = pose_runs.training_fps(config)
    with finished.open_best(workdir, config=pose_runs.one_batch(config), data=False) as run:
        step, variables = run.step, jax.device_get(run.variables)
    listed = None
    try:
        info = preparation.find(
            config.data.source, dict(config.data.options), config.data.dir or None
        ) / "dataset_info.json"
        listed = {"file": info.name, "sha256": _sha256(info)}
    except UserError:
        say("prepared data not found: the bundle names the data without a hash")
    facts = {
        "classes": [],
        "pose": {
            "joints": list(HUMAN36M.joints), "frames": config.data.frames,
            "fps": fps, "nominal_scale": pose_runs.nominal_scale(config) is not None,
            "confidence": pose_runs.confidence(config),
        },
        "training": {"step": step, "manifest": listed},
    }
    return facts, {"weights.safetensors": safetensors.numpy.save(flat_weights(variables))}


def _metrics(workdir: pathlib.Path, training: dict[str, Any]) -> dict[str, Any]:
    """Reads the metrics at the bundled step: of the test split, else of validation, else none."""
    step, images = training["step"], training.get("images", {"test": 1})
    split = next((name for name in ("test", "validation") if images.get(name)), "")
    if not split:
        return {"split": "", "step": step, "scalars": {}}
    path = workdir / "metrics.jsonl"
    records = curves.read_metrics(path) if path.exists() else ()
    found = next((
        {key: value for key, value in record.items() if key not in ("kind", "step")}
        for record in records if (record["kind"], record["step"]) == (split, step)
    ), None)
    if found is None:
        raise UserError(
            f"{path} has no metrics of the {split} split at step {step}; run `jaxcxr evaluate "
            f"--workdir={workdir}` first."
        )
    result = {"split": split, "step": step, "scalars": found}
    whole = workdir / "report" / "metrics.json"
    if whole.exists():
        result["report"] = json.loads(whole.read_text(encoding="utf-8"))
    return result


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
