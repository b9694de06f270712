"""Labels and predictions of poses put together as a protocol wants them, in millimetres."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxcxr.errors import UserError, some
from jaxcxr.pose.evaluation.pose_arrays import Key, PoseFile
from jaxcxr.pose.evaluation.protocols import Protocol
from jaxcxr.pose.geometry import joint_sets

_TO_MM = {"m": 1000.0, "mm": 1.0}
# A median pose smaller or larger than this was not read in its unit, nor were predictions whose
# size differs from that of the labels by about a thousand.
_SMALLEST, _LARGEST = 100.0, 10_000.0
_THOUSAND = (300.0, 3000.0)
_FAR = 1000.0  # millimetres between the predicted root and the origin


@dataclasses.dataclass(frozen=True)
class Pair:
    """Frame numbers `[frames]`, true and predicted poses `[frames, joints, 3]` in millimetres."""

    frames: np.ndarray
    truth: np.ndarray
    guess: np.ndarray


def join(
    labels: PoseFile,
    predictions: PoseFile,
    protocol: Protocol,
    labels_unit: str | None = None,
    predictions_unit: str | None = None,
) -> tuple[dict[Key, Pair], list[str], list[str]]:
    """Pairs the labels of the protocol's test set with the predictions of the same frames.

    Arguments:
      labels, predictions: the files.
      protocol: whose subjects, actions and joints count.
      labels_unit, predictions_unit: "m" or "mm"; none: as the file says, or the protocol's.

    Returns:
      Pairs by sequence; labelled sequences that are not of the test set; predicted sequences that
      are not scored.
    """
    to_mm = _factor(labels, "labels", labels_unit, protocol)
    guess_to_mm = _factor(predictions, "predictions", predictions_unit, protocol)
    labels, predictions = _in_order(labels, protocol), _in_order(predictions, protocol)
    for file in (labels, predictions):
        if file.about.get("protocol", protocol.name) != protocol.name:
            raise UserError(
                f"{file.path}: of the protocol {file.about['protocol']}, not {protocol.name}; "
                "give that as --protocol"
            )
        for key, (_, poses) in file.sequences.items():
            if poses.shape[1] != len(protocol.joints):
                raise UserError(
                    f"{file.path}: {poses.shape[1]} joints in {key}, but {protocol.name} has "
                    f"{len(protocol.joints)}: {', '.join(protocol.joints)}"
                )
    chosen = [key for key in sorted(labels.sequences) if _counts(key, protocol)]
    if not chosen:
        raise UserError(
            f"{labels.path}: none of its sequences ({some(map(str, labels.sequences))}) is of the "
            f"test set of {protocol.name}, subjects {', '.join(protocol.test)}"
        )
    lacking = [str(key) for key in chosen if key not in predictions.sequences]
    if lacking:
        raise UserError(
            f"{predictions.path}: {len(lacking)} of {len(chosen)} sequences are not predicted: "
            f"{some(lacking)}; its own are {some(map(str, sorted(predictions.sequences)))}"
        )
    pairs = {
        key: _pair(key, labels.sequences[key], predictions, to_mm, guess_to_mm) for key in chosen
    }
    for key, pair in pairs.items():
        _check_known(key, pair, protocol, labels.path, predictions.path)
    _check_sizes(pairs, protocol, labels.path, predictions.path)
    left_out = [str(key) for key in sorted(set(labels.sequences) - set(chosen))]
    return pairs, left_out, [str(k) for k in sorted(set(predictions.sequences) - set(chosen))]


def rate(labels: PoseFile, predictions: PoseFile, protocol: Protocol) -> float | None:
    """Frames per second of the sequences: as the files say, or else the protocol's.

    Returns:
      The rate; None where it varies.
    """
    said = [float(file.about["fps"]) for file in (labels, predictions) if "fps" in file.about]
    if len(set(said)) > 1:
        raise UserError(
            f"{labels.path} has {said[0]:g} frames per second, {predictions.path} {said[1]:g}; "
            "give predictions of the frames of the labels"
        )
    return (said[0] or None) if said else protocol.fps


def _in_order(file: PoseFile, protocol: Protocol) -> PoseFile:
    """The file with the protocol's joints in the protocol's order, where it says its own."""
    said = file.about.get("joint_set", protocol.joint_set)
    if said == protocol.joint_set:
        return file
    own, wanted = (joint_sets.joint_set(name).joints for name in (said, protocol.joint_set))
    lacking = [joint for joint in wanted if joint not in own]
    if lacking or any(poses.shape[1] != len(own) for _, poses in file.sequences.values()):
        reason = f"has no {', '.join(lacking)}" if lacking else f"has {len(own)} joints"
        raise UserError(
            f"{file.path}: says that its joints are those of {said}, which {reason}; "
            f"{protocol.name} takes those of {protocol.joint_set}"
        )
    order = [own.index(joint) for joint in wanted]
    return dataclasses.replace(
        file, sequences={k: (frames, poses[:, order]) for k, (frames, poses) in
                         file.sequences.items()}
    )


def _factor(file: PoseFile, name: str, unit: str | None, protocol: Protocol) -> float:
    said = file.about.get("unit")
    if unit and said and unit != said:
        raise UserError(
            f"{file.path}: says that its unit is {said}; leave --{name}-unit {unit} out, or mend it"
        )
    return _TO_MM[unit or said or protocol.unit]


def _check_known(key: Key, pair: Pair, protocol: Protocol, labels: Path, predictions: Path) -> None:
    known = np.isfinite(pair.truth).all(axis=-1)
    root = protocol.joints[protocol.root]
    if not known[:, protocol.root].all():
        frame = pair.frames[np.argmin(known[:, protocol.root])]
        raise UserError(
            f"{labels}: {key} has no {root} in frame {frame}; {protocol.name} takes poses relative "
            "to it: leave such frames out"
        )
    wrong = np.argwhere(known & ~np.isfinite(pair.guess).all(axis=-1))
    if len(wrong):
        frame, joint = wrong[0]
        raise UserError(
            f"{predictions}: {protocol.joints[joint]} in frame {pair.frames[frame]} of {key} is "
            f"not finite, and {len(wrong) - 1} more; predict every joint that is labelled"
        )


def _check_sizes(
    pairs: Mapping[Key, Pair], protocol: Protocol, labels: Path, predictions: Path
) -> None:
    """Refuses poses whose size or place says that they were read wrongly."""
    true_size = np.nanmedian(np.concatenate([_sizes(pair.truth) for pair in pairs.values()]))
    size = np.nanmedian(np.concatenate([_sizes(pair.guess) for pair in pairs.values()]))
    ratio = max(size / true_size, true_size / size) if size * true_size > 0 else 0.0
    for path, name, found, wrong in (
        (labels, "labels", true_size, not _SMALLEST <= true_size <= _LARGEST),
        (predictions, "predictions", size, _THOUSAND[0] < ratio < _THOUSAND[1]),
    ):
        if wrong:
            likely = "m" if found < _SMALLEST else "mm"
            raise UserError(
                f"{path}: the median pose measures {found:.4g} mm; if the file is in {likely}, say "
                f"--{name}-unit {likely}"
            )
    if protocol.root_rule == "none":
        offset = np.concatenate([
            np.linalg.norm(pair.guess[:, protocol.root], axis=-1) for pair in pairs.values()
        ])
        if np.nanmedian(offset) > _FAR:
            raise UserError(
                f"{predictions}: the root, {protocol.joints[protocol.root]}, is "
                f"{np.nanmedian(offset):,.0f} mm from the origin; {protocol.name} compares poses "
                "relative to it: subtract it from the predictions"
            )


def _counts(key: Key, protocol: Protocol) -> bool:
    return (
        key.subject in protocol.test
        and (not protocol.actions or key.kind in protocol.actions)
        and key.motion not in protocol.left_out
    )


def absent(keys: Sequence[Key], protocol: Protocol) -> list[str]:
    """Lists the subjects, or actions of subjects, of the test set that have no label."""
    if not protocol.actions:
        return [name for name in protocol.test if all(key.subject != name for key in keys)]
    present = {(key.subject, key.kind) for key in keys}
    return [
        f"{subject}/{action}" for subject in protocol.test for action in protocol.actions
        if (subject, action) not in present
    ]


def _pair(key: Key, labelled, predictions: PoseFile, to_mm: float, guess_to_mm: float) -> Pair:
    (frames, truth), (numbers, guess) = labelled, predictions.sequences[key]
    if predictions.numbered:
        place = np.minimum(np.searchsorted(numbers, frames), len(numbers) - 1)
        lacking = frames[numbers[place] != frames]
        if len(lacking):
            raise UserError(
                f"{predictions.path}: {len(lacking)} of {len(frames)} frames of {key} are not "
                f"predicted, the first is {lacking[0]}; predict every frame of the labels"
            )
        guess = guess[place]
    elif len(frames) != len(guess):
        raise UserError(
            f"{predictions.path}: {len(guess)} frames of {key}, but the labels have {len(frames)}; "
            "predict every frame of the labels, and no padding"
        )
    return Pair(frames, truth * np.float64(to_mm), guess * np.float64(guess_to_mm))


def _sizes(poses: np.ndarray) -> np.ndarray:
    """The longest side of the box around each pose, `[frames]`; NaN for a pose without joints."""
    known = np.isfinite(poses)
    high = np.where(known, poses, -np.inf).max(axis=1)
    low = np.where(known, poses, np.inf).min(axis=1)
    return np.where(known.any(axis=1), high - low, np.nan).max(axis=-1)
