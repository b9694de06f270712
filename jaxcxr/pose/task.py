"""Lifts sequences of 2D keypoints to 3D joints, root-relative, in Human3.6M's order."""

import csv
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr import models
from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.models.sequence import look
from jaxcxr.pose import augment, baselines
from jaxcxr.pose import losses as pose_losses
from jaxcxr.pose.evaluation import mean_errors, pose_errors, pose_metrics
from jaxcxr.pose.geometry import skeletons
from jaxcxr.pose.report import error_report, pose_figures, pose_page
from jaxcxr.pose.sources import clips
from jaxcxr.report import attention_figures, curves, page
from jaxcxr.statistics import reliability
from jaxcxr.task import Evaluation

MM = 1000.0  # models and losses are in metres, metrics in millimetres

# Weights of MixSTE; joints at the ends of limbs are harder.
LIMB_WEIGHTS = {"Knee": 1.5, "Ankle": 4.0, "Elbow": 1.5, "Wrist": 4.0}


class PoseTask:
    """The pose-lifting task, see `jaxcxr.task.Task`.

    Arguments:
      config: the resolved config.
      open_split: returns the windows of a split: overlapping for training, each frame in exactly
        one window for evaluation.
    """

    def __init__(self, config, open_split: Callable[[str], clips.Clips]):
        self._config = config
        self.source = functools.cache(open_split)
        self._skeleton = skeletons.HUMAN36M
        weights = np.ones(len(self._skeleton.joints), np.float32)
        if config.loss.joint_weights == "limbs":
            weights = np.array([_limb_weight(name) for name in self._skeleton.joints], np.float32)
        self.span_units = {"blocks": "frames", "frames": "frames", "joints": "bones"}
        self.loss_weights = {
            name: float(config.loss[name]) for name in pose_losses.TERMS if config.loss[name]
        }
        self._losses = pose_losses.Losses(
            self.loss_weights, self._skeleton, weights / weights.mean()
        )
        model = models.create(config.model.name, **config.model.options.to_dict())
        self._teaches = getattr(model, "teacher_forcing", False)
        # On windows as wide as the receptive field a strided model computes the middle frame alone.
        self._strided = (
            config.data.target == "center"
            and getattr(model, "receptive_field", None) == config.data.frames
            and not model.causal
        )

    @classmethod
    def open(cls, config) -> "PoseTask":
        """Opens the task with the prepared data of its config."""
        directory, settings = preparation.find_or_generate(config), config.data

        def open_split(split: str) -> clips.Clips:
            once = 1 if settings.target == "center" else settings.frames
            stride = settings.stride if split == "train" else once
            sequences = clips.read_sequences(directory, split)
            return clips.Clips(sequences, settings.frames, stride, settings.target)

        return cls(config, open_split)

    @classmethod
    def without_data(cls, config) -> "PoseTask":
        """Opens the task with one window of zeros."""
        frames = config.data.frames
        zeros = np.zeros((frames, len(skeletons.HUMAN36M.joints), 3), np.float32)
        root = np.zeros((frames, 3), np.float32) if config.loss.root else None
        sequence = clips.Sequence("0", "0", "0", "0", zeros, zeros, root)
        blank = clips.Clips([sequence], frames, frames, config.data.target)
        return cls(config, lambda split: blank)

    def sampling(self) -> None:
        """Returns None: each epoch takes every window once."""

    def model_options(self) -> dict:
        """Returns no options: models take the number of joints from their input."""
        return {}

    def inputs(self, batch, train=False):
        """Returns keypoints `[batch, frames, joints, 3]` (x, y, confidence) and model options.

        Options are the frame mask and, to train models with teacher forcing, the true joints.
        """
        options = {"mask": batch["mask"]}
        if train and self._teaches:
            options["joints"] = batch["joints"]
        if self._strided and batch["joints"].shape[1] == 1:
            options["strided"] = True
        return batch["keypoints"], options

    def augment(self, key, batch):
        """Mirrors random windows, left and right joints swapped."""
        keypoints, joints = augment.augment_pose(
            key, batch["keypoints"], batch["joints"], self._skeleton.swap, self._config.augment,
            batch["position"],
        )
        changed = {"keypoints": keypoints, "joints": joints}
        if "root" in batch:
            # The same key draws the same mirroring; the root is its own mirror joint.
            root = batch["root"][:, :, None]
            _, root = augment.augment_pose(
                key, root, root, (0,), self._config.augment, batch["position"]
            )
            changed["root"] = root[:, :, 0]
        return {**batch, **changed}

    def divisors(self, batch):
        """Counts the known joints, steps, bones or roots of each term in the batch."""
        return self._losses.counts(self._known(batch))

    def loss_sums(self, outputs, batch):
        """Sums the weighted terms of `pose_losses`."""
        if "root" in self.loss_weights and "root" not in batch:
            raise UserError(
                f"config.loss.root is {self.loss_weights['root']}, but the sequences of "
                f"{self._config.data.source!r} have no root positions; set it to 0."
            )
        return self._losses.sums(self._lifted(outputs, batch), batch, self._known(batch))

    def predict(self, outputs, batch):
        """Returns the predictions for each lifted frame, all float32.

        Returns:
          `joints` `[batch, frames, joints, 3]` in metres, and if the model gives them `sigma`
          `[batch, frames, joints]`, the standard deviation of each coordinate in metres, and
          `root` `[batch, frames, 3]` in metres in the camera frame.
        """
        found = dict(self._lifted(outputs, batch))
        if "log_variance" in found:
            found["sigma"] = jnp.exp(0.5 * found.pop("log_variance"))
        return found

    def _lifted(self, outputs, batch) -> dict:
        """Returns outputs by name for the lifted frames: all, or the middle one."""
        outputs = outputs if isinstance(outputs, dict) else {"joints": outputs}
        given, wanted = outputs["joints"].shape[1], batch["joints"].shape[1]

        def cut(x):
            x = x if given == wanted else x[:, given // 2 : given // 2 + 1]
            return x.astype(jnp.float32)

        return jax.tree.map(cut, outputs)

    def evaluate(self, split: str, predictions) -> Evaluation:
        """Computes MPJPE and P-MPJPE in mm, MPJVE in mm/s and MPJPE by action, with baselines.

        If the model gives them, also the coverage of its uncertainty intervals and the mean root
        position error (MRPE) in mm.
        """
        source = self.source(split)
        methods = {"model": [p * MM for p in source.stitch(predictions["joints"])]}
        methods |= self._baseline_predictions(split)
        truth = np.concatenate([s.joints for s in source.sequences]) * MM
        actions = [s.action for s in source.sequences for _ in s.joints]
        rows = []
        metrics: dict[str, float] = {}
        for name, sequences in methods.items():
            values = np.concatenate(sequences)
            errors = pose_errors.frame_errors(values, truth)
            by_action = mean_errors.by_action(errors, actions)
            result = {
                "mpjpe": float(errors.mean()),
                "p_mpjpe": mean_errors.p_mpjpe(values, truth),
                "mpjpe_action_mean": mean_errors.action_mean(by_action),
                "mpjve_per_second": _velocity_error(sequences, source.sequences),
            }
            rows.append((name, result, by_action))
            prefix = "" if name == "model" else f"{name}/"
            metrics |= {prefix + key: value for key, value in result.items()}
        lines = [_table(rows)]
        if "sigma" in predictions:
            shares = self._coverage(split, predictions)
            metrics |= {f"coverage_{level:.0%}".rstrip("%"): x for level, x in shares.items()}
            lines.append("intervals hold the truth: " + ", ".join(
                f"{level:.0%} intervals {share:.1%}" for level, share in shares.items()
            ))
        if "root" in predictions and all(s.root is not None for s in source.sequences):
            roots = np.concatenate(source.stitch(predictions["root"]))
            error = roots - np.concatenate([s.root for s in source.sequences])
            metrics["mrpe"] = float(np.linalg.norm(error, axis=-1).mean()) * MM
            lines.append(f"root: MRPE {metrics['mrpe']:.1f} mm")
        return Evaluation(metrics, "\n".join(lines))

    def _coverage(self, split: str, predictions) -> dict[float, float]:
        """Computes the coverage over all joints except the root, which is always at 0."""
        source = self.source(split)
        joints, sigma = (
            np.concatenate(source.stitch(predictions[name])) for name in ("joints", "sigma")
        )
        error = joints - np.concatenate([s.joints for s in source.sequences])
        return reliability.coverage(error[:, 1:], sigma[:, 1:, None])

    def ids(self, split: str, index) -> list[str]:
        """Names windows by sequence and first frame."""
        source = self.source(split)
        return [
            f"{source.sequences[which].sequence_id}@{start}"
            for which, start in (source.windows[i] for i in np.asarray(index))
        ]

    def write(self, split: str, predictions, workdir: pathlib.Path) -> None:
        """Writes `predictions/<split>.csv` (mm, one row per frame) and the error report.

        Also `<split>.npz` and `<split>_labels.npz` (m), which `jaxcxr score --task pose` reads.
        """
        source = self.source(split)
        stitched = source.stitch(predictions["joints"])
        names = self._skeleton.joints
        path = workdir / "predictions" / f"{split}.csv"
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            columns = [f"{kind}_{name}_{axis}" for kind in ("true", "predicted") for name in names
                       for axis in "xyz"]
            writer.writerow(("id", "sequence_id", "subject", "action", "frame", *columns))
            for sequence, values in zip(source.sequences, stitched, strict=True):
                both = np.concatenate([sequence.joints, values], 1) * MM
                for frame, row in enumerate(both.reshape(len(both), -1)):
                    writer.writerow((f"{sequence.sequence_id}@{frame}", sequence.sequence_id,
                                     sequence.subject, sequence.action, frame,
                                     *(f"{value:.1f}" for value in row)))
        keys = [_key(sequence) for sequence in source.sequences]
        truths = (sequence.joints for sequence in source.sequences)
        rate = source.rate or 0.0  # 0 means several rates
        for name, arrays in ((f"{split}_labels", truths), (split, stitched)):
            named: dict[str, Any] = dict(zip(keys, arrays, strict=True))
            np.savez(
                path.with_name(f"{name}.npz"), unit="m", joint_set=self._skeleton.name, fps=rate,
                **named,
            )
        errors, folder = error_report.measure(source, stitched), workdir / "report"
        folder.mkdir(exist_ok=True)
        error_report.write(errors, self._skeleton.joints, split, folder)
        pose_figures.write(errors, self._skeleton, split, folder)

    def _examples(self, split: str) -> np.ndarray:
        """Chooses the fullest of a few windows in the middle of a split."""
        source = self.source(split)
        middle = len(source) // 2
        near = np.unique(np.clip(np.arange(middle - 8, middle + 9), 0, len(source) - 1))
        near = near[np.argsort(np.abs(near - middle), kind="stable")]
        return near[[np.argmax(source.read(near)["mask"].sum(1))]]

    def _attention_figure(self, split: str, index, stacks):
        """Draws the weights of each last block, and the rollout if all blocks are over frames."""
        maps, ticks = {}, {}
        for stack, blocks in stacks.items():
            *_, (name, last) = blocks.items()
            if "weights" in last:
                # Attention over joints has frames in its batch, attention over frames joints.
                maps[name] = last["weights"].mean(0)
                if stack == "joints":
                    ticks[name] = self._skeleton.joints
        if not maps:
            return None
        whole = [block.get("weights") for block in stacks.get("blocks", {}).values()]
        if whole and all(weights is not None for weights in whole):
            maps["rollout"] = attention_figures.rollout(whole)
        means = "; means over frames, over joints" if "joints" in stacks else ""
        return attention_figures.pair_attention_figure(
            maps, ticks, f"attention in {self.ids(split, index)[0]}{means}"
        )

    def draw(self, split: str, model, variables, workdir: pathlib.Path) -> list[str]:
        """Draws training curves and attention."""
        curves.write(workdir, pose_metrics.MPJPE)
        if not split:
            return []
        if variables is None:
            return ["no figures of attention: they are drawn by runs of a single process"]
        seen = look.at_examples(model, variables, self._read(split), self._examples(split))
        figure = functools.partial(self._attention_figure, split)
        return attention_figures.write(seen, figure, self.span_units, workdir / "report")

    def _read(self, split: str) -> Callable:
        return lambda index: self.inputs(self.source(split).read(index))

    def page(self, split: str, model, variables, workdir: pathlib.Path) -> pathlib.Path:
        """Writes the report page, which needs the predictions alone."""
        del model, variables
        title = f"{self._config.data.source}, {self._config.model.name}"
        if not split:
            return page.write(page.unevaluated(workdir, self, title), workdir)
        return page.write(pose_page.build(self, split, workdir, title), workdir)

    @staticmethod
    def stress_test():
        """Returns the module of the task's stress test, see `jaxcxr.task.StressTest`."""
        from jaxcxr.pose.evaluation import stress_poses  # lazily: training does not need it

        return stress_poses

    def facts(self) -> dict:
        """Returns nothing: all poses have the same joints."""
        return {}

    def describe(self) -> dict[str, str]:
        """Describes the windows, sequences, frames and subjects of each split."""
        lines = {}
        for split in ("train", "validation", "test"):
            source = self.source(split)
            frames = sum(len(s.joints) for s in source.sequences)
            subjects = sorted({s.subject for s in source.sequences})
            lines[split] = (f"{len(source):,} windows, {len(source.sequences):,} sequences, "
                            f"{frames:,} frames of {', '.join(subjects)}")
        return lines

    def _known(self, batch):
        """Marks lifted frames with a known target, bool `[batch, frames]`."""
        mask, wanted = batch["mask"], batch["joints"].shape[1]
        if mask.shape[1] != wanted:
            middle = mask.shape[1] // 2
            mask = mask[:, middle : middle + 1]
        return mask & batch["valid"][:, None]

    @functools.cached_property
    def _baselines(self):
        """Fits the mean pose and the ridge regression once on the training frames."""
        train = self.source("train").sequences
        x = np.concatenate([s.inputs for s in train])
        y = np.concatenate([s.joints for s in train])
        return baselines.mean_pose(y), baselines.ridge(x, y)

    def _baseline_predictions(self, split: str) -> dict[str, list[np.ndarray]]:
        mean, ridge = self._baselines
        sequences = self.source(split).sequences
        return {
            "mean_pose": [np.broadcast_to(mean, s.joints.shape) * MM for s in sequences],
            "ridge": [ridge(s.inputs) * MM for s in sequences],
        }


def _velocity_error(predicted, sequences) -> float:
    """Computes MPJVE in mm/s at each sequence's frame rate; 0 if none has two frames."""
    total = count = 0.0
    for values, sequence in zip(predicted, sequences, strict=True):
        errors, _ = pose_errors.difference_errors(values, sequence.joints * MM)
        total, count = total + errors.sum() * sequence.fps, count + errors.size
    return float(total / max(count, 1.0))


def _key(sequence: clips.Sequence) -> str:
    """Names a sequence SUBJECT/TAKE/CAMERA; `S9_Walking_1_54138969` has the take "Walking 1"."""
    take = sequence.take.removeprefix(f"{sequence.subject}_").replace("_", " ")
    return f"{sequence.subject}/{take}/{sequence.camera}"


def _limb_weight(name: str) -> float:
    return next((w for part, w in LIMB_WEIGHTS.items() if part.lower() in name.lower()), 1.0)


def _table(rows) -> str:
    """Formats a line per method: MPJPE, P-MPJPE, mean of actions, MPJVE in mm/s, by action."""
    actions = sorted(rows[0][2])
    widths = [max(9, len(action) + 2) for action in actions]
    lines = [f"{'mm':<12}{'MPJPE':>9}{'P-MPJPE':>9}{'actions':>9}{'MPJVE/s':>9}"
             + "".join(f"{a:>{w}}" for a, w in zip(actions, widths, strict=True))]
    for name, result, by_action in rows:
        cells = (result["mpjpe"], result["p_mpjpe"], result["mpjpe_action_mean"],
                 result["mpjve_per_second"])
        lines.append(f"{name:<12}" + "".join(f"{cell:>9.1f}" for cell in cells)
                     + "".join(f"{by_action[a]:>{w}.1f}"
                               for a, w in zip(actions, widths, strict=True)))
    return "\n".join(lines)
