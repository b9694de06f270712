"""Human pose: sequences of 2D keypoints to 3D joints, root-relative, Human3.6M order."""

import csv
import functools
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxcxr.analysis import figures_attention, report
from jaxcxr.data import augment, clips, skeletons
from jaxcxr.metrics import pose as metrics_pose
from jaxcxr.tasks import Evaluation, pose_baselines

MM = 1000.0  # models and losses are in metres, metrics in millimetres

# Joints at the ends of limbs are harder and count more (MixSTE's published weighting).
LIMB_WEIGHTS = {"Knee": 1.5, "Ankle": 4.0, "Elbow": 1.5, "Wrist": 4.0}


class PoseTask:
    """The pose-lifting task, see `jaxcxr.tasks.Task`.

    Arguments:
      config: the resolved config.
      open_split: split name -> its windows: overlapping for training, each frame in exactly one
        window for evaluation.
    """

    def __init__(self, config, open_split: Callable[[str], clips.Clips]):
        self._config = config
        self.source = functools.cache(open_split)
        self._skeleton = skeletons.HUMAN36M
        weights = np.ones(len(self._skeleton.joints), np.float32)
        if config.loss.joint_weights == "limbs":
            weights = np.array([_limb_weight(name) for name in self._skeleton.joints], np.float32)
        self._joint_weights = weights / weights.mean()
        self.span_units = {"blocks": "frames", "frames": "frames", "joints": "bones"}
        self.loss_weights = {"position": 1.0}
        if config.loss.velocity:
            self.loss_weights["velocity"] = config.loss.velocity

    def sampling(self) -> None:
        """Every window once an epoch."""

    def model_options(self) -> dict:
        """Nothing: the models take the number of joints from their input."""
        return {}

    def inputs(self, batch):
        """Keypoints `[batch, frames, joints, 3]` (x, y, confidence) and the frame mask."""
        return batch["keypoints"], {"mask": batch["mask"]}

    def augment(self, key, batch):
        """Random mirroring, left and right joints swapped."""
        keypoints, joints = augment.augment_pose(
            key, batch["keypoints"], batch["joints"], self._skeleton.swap, self._config.augment,
            batch["position"],
        )
        return {**batch, "keypoints": keypoints, "joints": joints}

    def divisors(self, batch):
        """Known joints, and known joint steps between neighbouring frames, in the batch."""
        known = self._known(batch).astype(jnp.float32)
        joints = float(len(self._skeleton.joints))
        counts = {"position": known.sum() * joints}
        if "velocity" in self.loss_weights:
            counts["velocity"] = (known[:, 1:] * known[:, :-1]).sum() * joints
        return counts

    def loss_sums(self, outputs, batch):
        """Distances in metres; for velocities, between differences of neighbouring frames."""
        error = outputs.astype(jnp.float32) - batch["joints"]
        known = self._known(batch)
        weighted = _norm(error) * self._joint_weights
        sums = {"position": jnp.sum(jnp.where(known[..., None], weighted, 0.0))}
        if "velocity" in self.loss_weights:
            both = (known[:, 1:] & known[:, :-1])[..., None]
            steps = _norm(error[:, 1:] - error[:, :-1])
            sums["velocity"] = jnp.sum(jnp.where(both, steps, 0.0))
        return sums

    def predict(self, outputs, batch):
        """Joints in metres, `[batch, frames, joints, 3]`."""
        return {"joints": outputs.astype(jnp.float32)}

    def evaluate(self, split: str, predictions) -> Evaluation:
        """MPJPE and P-MPJPE in mm beside both baselines, and MPJPE by action."""
        source = self.source(split)
        methods = {"model": [p * MM for p in source.stitch(predictions["joints"])]}
        methods |= self._baseline_predictions(split)
        truth = np.concatenate([s.joints for s in source.sequences]) * MM
        actions = np.repeat(
            [s.action for s in source.sequences], [len(s.joints) for s in source.sequences]
        )
        rows, metrics = [], {}
        for name, sequences in methods.items():
            values = np.concatenate(sequences)
            errors = metrics_pose.frame_errors(values, truth)
            by_action = metrics_pose.by_action(errors, actions)
            result = {
                "mpjpe": float(errors.mean()),
                "p_mpjpe": metrics_pose.p_mpjpe(values, truth),
                "mpjpe_action_mean": metrics_pose.action_mean(by_action),
            }
            rows.append((name, result, by_action))
            prefix = "" if name == "model" else f"{name}/"
            metrics |= {prefix + key: value for key, value in result.items()}
        return Evaluation(metrics, _table(rows))

    def ids(self, split: str, index) -> list[str]:
        """Sequence and first frame of windows."""
        source = self.source(split)
        return [
            f"{source.sequences[which].sequence_id}@{start}"
            for which, start in (source.windows[i] for i in np.asarray(index))
        ]

    def write(self, split: str, predictions, workdir: pathlib.Path) -> None:
        """`predictions/<split>.csv` (mm, one row per frame), skeletons and error per joint."""
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
        folder = workdir / "report"
        truth = np.concatenate([s.joints for s in source.sequences]) * MM
        values = np.concatenate(stitched) * MM
        chosen = np.linspace(0, len(truth) - 1, min(6, len(truth))).astype(int)
        report.skeletons(values[chosen], truth[chosen], self._skeleton.parents,
                         folder / f"skeletons_{split}.png")
        report.joint_errors(metrics_pose.per_joint(values, truth), names,
                            folder / f"joint_errors_{split}.png")

    def examples(self, split: str) -> np.ndarray:
        """The fullest of a few windows; of equal ones the middle one."""
        source = self.source(split)
        middle = len(source) // 2
        near = np.unique(np.clip(np.arange(middle - 8, middle + 9), 0, len(source) - 1))
        near = near[np.argsort(np.abs(near - middle), kind="stable")]
        return near[[np.argmax(source.read(near)["mask"].sum(1))]]

    def attention_figure(self, split: str, index, stacks):
        """Weights of each last block, and rollout where all blocks are over frames."""
        maps, ticks = {}, {}
        for stack, blocks in stacks.items():
            *_, (name, last) = blocks.items()
            if "weights" in last:
                # The batch is that of frames for joints, and of joints for frames.
                maps[name] = last["weights"].mean(0)
                if stack == "joints":
                    ticks[name] = self._skeleton.joints
        if not maps:
            return None
        whole = [block.get("weights") for block in stacks.get("blocks", {}).values()]
        if whole and all(weights is not None for weights in whole):
            maps["rollout"] = figures_attention.rollout(whole)
        means = "; means over frames, over joints" if "joints" in stacks else ""
        return figures_attention.pair_attention_figure(
            maps, ticks, f"attention in {self.ids(split, index)[0]}{means}"
        )

    def describe(self) -> dict[str, str]:
        """Sequences, frames and subjects of each split."""
        lines = {}
        for split in ("train", "validation", "test"):
            source = self.source(split)
            frames = sum(len(s.joints) for s in source.sequences)
            subjects = sorted({s.subject for s in source.sequences})
            lines[split] = (f"{len(source):,} windows, {len(source.sequences):,} sequences, "
                            f"{frames:,} frames of {', '.join(subjects)}")
        return lines

    def _known(self, batch):
        return batch["mask"] & batch["valid"][:, None]

    @functools.cached_property
    def _baselines(self):
        """The mean pose and the ridge regression, fitted once on the training frames."""
        train = self.source("train").sequences
        x = np.concatenate([s.inputs for s in train])
        y = np.concatenate([s.joints for s in train])
        return pose_baselines.mean_pose(y), pose_baselines.ridge(x, y)

    def _baseline_predictions(self, split: str) -> dict[str, list[np.ndarray]]:
        mean, ridge = self._baselines
        sequences = self.source(split).sequences
        return {
            "mean_pose": [np.broadcast_to(mean, s.joints.shape) * MM for s in sequences],
            "ridge": [ridge(s.inputs) * MM for s in sequences],
        }


def _norm(x):
    """Length of the last axis with a finite gradient at zero."""
    return jnp.sqrt(jnp.sum(x * x, -1) + 1e-12)


def _limb_weight(name: str) -> float:
    return next((w for part, w in LIMB_WEIGHTS.items() if part.lower() in name.lower()), 1.0)


def _table(rows) -> str:
    """One line per method: MPJPE, P-MPJPE, the mean over actions, then MPJPE of each action."""
    actions = sorted(rows[0][2])
    widths = [max(9, len(action) + 2) for action in actions]
    lines = [f"{'mm':<12}{'MPJPE':>9}{'P-MPJPE':>9}{'actions':>9}"
             + "".join(f"{a:>{w}}" for a, w in zip(actions, widths, strict=True))]
    for name, result, by_action in rows:
        cells = (result["mpjpe"], result["p_mpjpe"], result["mpjpe_action_mean"])
        lines.append(f"{name:<12}" + "".join(f"{cell:>9.1f}" for cell in cells)
                     + "".join(f"{by_action[a]:>{w}.1f}"
                               for a, w in zip(actions, widths, strict=True)))
    return "\n".join(lines)
