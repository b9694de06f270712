"""Scores 3D poses of any framework by a protocol, with 95% intervals.

The files are described in `jaxcxr.pose.evaluation.pose_arrays`, the protocols in
`jaxcxr.pose.evaluation.protocols`. What the labels hold beyond the protocol's test set is left out.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

import jaxcxr
from jaxcxr.errors import UserError, some
from jaxcxr.pose.evaluation import pose_arrays, pose_metrics, pose_pairs, protocols
from jaxcxr.pose.evaluation.pose_arrays import Key
from jaxcxr.pose.evaluation.pose_metrics import METRICS, OF_JOINTS, PoseMetric
from jaxcxr.pose.evaluation.pose_pairs import Pair
from jaxcxr.pose.evaluation.protocols import Protocol
from jaxcxr.report import tables
from jaxcxr.statistics import intervals


def score_files(
    labels: str,
    predictions: str,
    out: pathlib.Path,
    protocol: Protocol,
    *,
    sequence: str | None = None,
    labels_unit: str | None = None,
    predictions_unit: str | None = None,
    others: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> str:
    """Scores poses by a protocol and writes metrics.json, metrics.csv and metrics.md.

    Arguments:
      labels, predictions: files as `pose_arrays.read` reads them.
      out: folder to write to.
      protocol: how they are counted.
      sequence: which subject/action/camera a `.npy` is of.
      labels_unit, predictions_unit: "m" or "mm"; as the file says, or else the protocol's.
      others: metrics.json of other results of the protocol, to stand in one table.
      resamples, seed: of the bootstrap over motions.

    Returns:
      the tables, for the screen.
    """
    compared = {name: _read_result(name) for name in others}
    truth = pose_arrays.read(labels, sequence)
    guess = pose_arrays.read(predictions, sequence)
    pairs, left_out, ignored = pose_pairs.join(
        truth, guess, protocol, labels_unit, predictions_unit
    )
    fps = pose_pairs.rate(truth, guess, protocol)
    result = score(pairs, dataclasses.replace(protocol, fps=fps), resamples, seed)
    result["test_set"] |= {"labels_left_out": left_out, "predictions_ignored": ignored}
    result |= {
        "inputs": {"labels": truth.fingerprint, "predictions": guess.fingerprint},
        "jaxcxr_version": jaxcxr.__version__,
    }
    if compared:
        compared["this"] = result
        protocols.same(compared)
    _write(result, compared, out)
    written = ", ".join(str(out / f"metrics.{end}") for end in ("json", "csv", "md"))
    return "\n".join([to_text(result, compared), *_remarks(result), f"Written: {written}"])


def score(
    pairs: Mapping[Key, Pair],
    protocol: Protocol,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Metrics with intervals, in the form of metrics.json.

    Arguments:
      pairs: true and predicted poses of each sequence, as `pose_pairs.join` gives them; a joint of
        the labels that is not finite is missing, and left out.
      protocol: how they are counted.
      resamples, seed: of the bootstrap. It draws whole motions, with all cameras, within each
        action where the average is over actions; n - 1 of n motions (Rao and Wu, 1988), since with
        few motions drawing n of n is too narrow.

    Returns:
      `protocol`, `overall` (metric -> value, `METRIC_interval` -> [low, high], none where fewer
      than two motions define it), `per_action`, `per_subject`, `per_camera` and `per_joint` alike,
      `counts`, `test_set`, `units`, `settings`. What is undefined is None.
    """
    keys = list(pairs)
    numbers = [_statistics(pairs[key], protocol) for key in keys]
    sums = np.stack([entry.sums for entry in numbers])
    counts = np.stack([entry.counts for entry in numbers])
    motions = np.array([key.motion for key in keys])
    strata = np.array([_stratum(key, protocol) for key in keys])

    def entry(rows, metrics=METRICS, of=(sums, counts)):
        chosen = (of[0][rows], of[1][rows], strata[rows], motions[rows])
        values = pose_metrics.estimate(*chosen[:3])
        ranges = pose_metrics.bootstrap(*chosen, resamples=resamples, seed=seed)
        return _entry(metrics, values, ranges)

    def grouped(names):
        names = np.array(names)
        return {str(name): entry(names == name) for name in np.unique(names)}

    every = np.ones(len(keys), bool)
    overall = entry(every)
    if protocol.fps is not None:
        overall |= _per_second(overall, protocol.fps)
    joint_sums = np.stack([one.joint_sums for one in numbers])
    joint_counts = np.stack([one.joint_counts for one in numbers])
    per_joint = {
        name: entry(every, OF_JOINTS, (joint_sums[..., j], joint_counts[..., j]))
        for j, name in enumerate(protocol.joints)
    }
    missing = sum(int((~np.isfinite(pair.truth).all(-1)).sum()) for pair in pairs.values())
    return {
        "task": "pose",
        "protocol": protocol.name,
        "overall": overall,
        "per_action": grouped([key.kind for key in keys]),
        "per_subject": grouped([key.subject for key in keys]),
        "per_camera": grouped([key.camera for key in keys]),
        "per_joint": per_joint,
        "counts": {
            "sequences": len(keys), "motions": len(set(motions)), "joints_missing": missing,
            "frames": sum(len(pair.frames) for pair in pairs.values()),
        },
        "test_set": {"absent": pose_pairs.absent(keys, protocol)},
        "units": {metric.name: metric.unit for metric in METRICS},
        "settings": {
            "definition": dataclasses.asdict(protocol), "resamples": resamples, "seed": seed,
            "level": intervals.LEVEL, "resampled": "motions, with all cameras",
        },
    }


def to_text(result: Mapping, compared: Mapping[str, Mapping] | None = None) -> str:
    """Formats the result of `score` as aligned tables."""
    blocks = [
        "\n".join(tables.aligned(lines)) for lines in _tables(result, compared or {}).values()
    ]
    return "\n\n".join([_title(result), *blocks])


def _stratum(key: Key, protocol: Protocol) -> str:
    names = {"frame": "", "action": key.kind, "subject-action": f"{key.subject}/{key.kind}"}
    return names[protocol.average]


def _statistics(pair: Pair, protocol: Protocol) -> pose_metrics.Statistics:
    frames, truth = pair.frames, pair.truth
    guess = pair.guess.copy()
    truth = truth - truth[:, [protocol.root]]
    if protocol.root_rule == "subtract":
        guess = guess - guess[:, [protocol.root]]
    elif protocol.root_rule == "zero":
        guess[:, protocol.root] = 0.0
    return pose_metrics.statistics(
        guess, truth, np.concatenate([[0], np.cumsum(np.diff(frames) != 1)]),
        parents=protocol.parents, scored=protocol.scored, inclusive=protocol.inclusive,
    )


def _entry(metrics: Sequence[PoseMetric], values: np.ndarray, drawn: np.ndarray) -> dict:
    entry: dict = {}
    for metric, value, column in zip(metrics, values, drawn.T, strict=True):
        entry |= metric.entry(value, intervals.percentile_interval(column))
    return entry


def _per_second(overall: Mapping, fps: float) -> dict:
    value, interval = overall["mpjve"], overall["mpjve_interval"]
    return {
        "mpjve_per_second": None if value is None else value * fps,
        "mpjve_per_second_interval": interval and [bound * fps for bound in interval],
    }


def _title(result: Mapping) -> str:
    counts = result["counts"]
    return (
        f"protocol {result['protocol']}: {counts['frames']:,} frames of {counts['sequences']} "
        f"sequences, {counts['motions']} motions"
    )


def _tables(result: Mapping, compared: Mapping[str, Mapping]) -> dict[str, list[tuple[str, ...]]]:
    metrics = tuple(metric.head for metric in METRICS)
    lines = [("", *metrics)]
    for group in ("action", "subject", "camera"):
        lines += [
            (f"{group} {name}", *_cells(entry, METRICS))
            for name, entry in result[f"per_{group}"].items()
        ]
    average = result["settings"]["definition"]["average"]
    lines.append((f"all ({average} mean)", *_cells(result["overall"], METRICS)))
    joints = [("joint", *(metric.head for metric in OF_JOINTS))]
    joints += [(n, *_cells(e, OF_JOINTS)) for n, e in result["per_joint"].items()]
    found = {"groups": lines, "joints": joints}
    if compared:
        rows = [(name, *_cells(one["overall"], METRICS)) for name, one in compared.items()]
        found["compared"] = [(result["protocol"], *metrics), *rows]
    return found


def _cells(entry: Mapping, metrics: Sequence[PoseMetric]) -> list[str]:
    return [metric.cell(entry) or "n/a" for metric in metrics]


def _remarks(result: Mapping) -> list[str]:
    remarks, test_set = [], result["test_set"]
    own, fps = protocols.get(result["protocol"]).fps, result["settings"]["definition"]["fps"]
    if own is not None and fps != own:
        rate = "several rates" if fps is None else f"{fps:g} frames per second"
        remarks.append(
            f"The sequences have {rate}, the protocol {own:g}: errors per frame of velocities and "
            "accelerations are not comparable."
        )
    for names, fact in (
        (test_set["absent"], "parts of the protocol's test set have no label; this is not its "
         "number"),
        (test_set["labels_left_out"], "labelled sequences are not of the test set: left out"),
        (test_set["predictions_ignored"], "predicted sequences are not scored: ignored"),
    ):
        if names:
            remarks.append(f"{len(names)} {fact}: {some(names)}")
    if result["counts"]["joints_missing"]:
        remarks.append(
            f"{result['counts']['joints_missing']:,} joints are missing in the labels and left out"
        )
    if result["overall"]["mpjpe_interval"] is None:
        remarks.append("No interval: it takes two motions, which the average does not keep apart.")
    return remarks


def _read_result(name: str) -> dict:
    try:
        result = json.loads(pathlib.Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{name}: no JSON ({error})") from error
    if not isinstance(result, dict) or not isinstance(result.get("overall"), dict):
        raise UserError(f"{name}: not the metrics.json of jaxcxr score --task=pose")
    return result


def _write(result: Mapping, compared: Mapping[str, Mapping], out: pathlib.Path) -> None:
    rows = [{"group": "overall", "name": "", **tables.flat(result["overall"])}]
    for group in ("action", "subject", "camera", "joint"):
        rows += [
            {"group": group, "name": name, **tables.flat(entry)}
            for name, entry in result[f"per_{group}"].items()
        ]
    parts = [_title(result)]
    for lines in _tables(result, compared).values():
        parts.append("\n".join(tables.markdown(lines)))
    tables.write_result(
        out, result, [{"protocol": result["protocol"], **row} for row in rows], parts
    )
