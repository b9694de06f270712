"""Small tasks held in memory, to test the trainer without prepared data."""

import numpy as np

from jaxcxr import config as base
from jaxcxr.pose import task as pose_task
from jaxcxr.pose.sources import clips
from jaxcxr.xray import task as xray_task
from jaxcxr.xray.images import manifest

CLASSES = ("Effusion", "Mass", "Nodule")


class ToyXrays:
    """Noise images whose brightness in a corner tells the label; some labels unknown."""

    def __init__(self, count: int, seed: int, size: int = 8, unknown: float = 0.3):
        rng = np.random.default_rng(seed)
        self.labels = (rng.random((count, len(CLASSES))) < 0.4).astype(np.int8)
        images = rng.normal(110, 25, (count, size, size, 1))
        for c in range(len(CLASSES)):
            images[:, 2 * c : 2 * c + 2, :, 0] += 60.0 * self.labels[:, c, None, None]
        self.images = np.clip(images, 0, 255).astype(np.uint8)
        self.labels[rng.random(self.labels.shape) < unknown] = -1
        self.manifest = manifest.from_rows(
            [{"image_id": f"image{i}", "patient_id": f"image{i}", "split": "train",
              "labels": self.labels[i]} for i in range(count)],
            CLASSES,
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "labels": self.labels[index]}

    read = __getitem__


def xray_config(**changes):
    """A config for `make_xray_task` with one stage; changes as dotted keys with "__" for "."."""
    config = base.default("cxr")
    base.set_model(config, "resnet18", stages=(1, 1, 1, 1), width=4, stem="small",
                   head_width=8, head_dropout=0.0)
    base.add_stage(config, "all", "8 steps", optimizer__name="adamw", learning_rate=1e-2)
    config.batch_size = 16
    config.data.image_size = 8
    config.data.threads = 0
    for name in ("rotation", "scale", "translation", "shear", "brightness", "contrast"):
        config.augment[name] = 0.0
    config.augment.crop_area = 1.0
    config.augment.crop_aspect = 0.0
    config.evaluate_every = "4 steps"
    config.checkpoint.every = "2 steps"
    config.log_every = 1
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(flat)
    return config


def make_xray_task(config, train: int = 40, test: int = 21):
    """The chest X-ray task over `ToyXrays`."""
    sizes = {"train": (train, 0), "validation": (test, 1), "test": (test, 2)}
    size = config.data.image_size
    return xray_task.XrayTask(config, lambda split: ToyXrays(*sizes[split], size=size))


def toy_clips(frames: int, stride: int, lengths=(30, 7, 19), seed: int = 0) -> clips.Clips:
    """Windows over random sequences of the given lengths."""
    rng = np.random.default_rng(seed)
    sequences = []
    for i, length in enumerate(lengths):
        joints = np.cumsum(rng.normal(0, 0.02, (length, 17, 3)), 0) + rng.normal(0, 0.3, (17, 3))
        joints = (joints - joints[:, :1]).astype(np.float32)
        inputs = np.concatenate([joints[..., :2], np.ones((length, 17, 1))], -1)
        sequences.append(clips.Sequence(f"s{i}", f"S{i}", "walk", "cam0",
                                        inputs.astype(np.float32), joints))
    return clips.Clips(sequences, frames, stride)


def pose_config(**changes):
    """A config for `make_pose_task` with one stage."""
    config = base.default("pose")
    base.set_model(config, "pose_temporal", dim=16, depth=1, heads=2, drop_path=0.0)
    base.add_stage(config, "all", "8 steps", optimizer__name="adamw", learning_rate=1e-3)
    config.batch_size = 16
    config.data.frames = 9
    config.data.stride = 3
    config.data.threads = 0
    config.evaluate_every = "4 steps"
    config.checkpoint.every = "2 steps"
    config.log_every = 1
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(flat)
    return config


def two_stages(**changes):
    """Head then everything, three steps each, in a model that compiles fast."""
    config = pose_config(stages__all__trainable=(r"^head/",), stages__all__duration="3 steps",
                         model__random_backbone=True)
    base.add_stage(config, "second", "3 steps", optimizer__name="adamw", learning_rate=1e-3)
    config.ema_decay = 0.9
    config.evaluate_every = "2 steps"
    config.checkpoint.every = "1 step"
    config.checkpoint.keep = 3
    config.report.samples = 2
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def make_pose_task(config):
    """The pose task over `toy_clips`."""

    def open_split(split):
        stride = config.data.stride if split == "train" else config.data.frames
        return toy_clips(config.data.frames, stride, seed=len(split))

    return pose_task.PoseTask(config, open_split)


def create(config):
    """Stands in for `jaxcxr.task.create`: the toy task of a config."""
    return make_xray_task(config) if config.task == "cxr" else make_pose_task(config)
