"""The first evening: generated data, one laptop, a few minutes.

`--config=configs/demo.py` trains a small ResNet on chest phantoms; with `:pose`, a small temporal
transformer on motion phantoms. `:quick` and `:pose,quick` are the same shrunken to seconds, to try
the machinery; their metrics mean nothing.

    python -m jaxcxr.main --config=configs/demo.py --workdir=runs/demo
    python -m jaxcxr.main --config=configs/demo.py:pose --workdir=runs/demo_pose

Measured: see "Generated data" in docs/results.md; about two minutes on two CPU cores.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError


def get_config(arg: str = ""):
    words = set(filter(None, arg.split(",")))
    if words - {"pose", "quick"}:
        raise UserError(f"configs/demo.py takes pose, quick or pose,quick, not {arg!r}.")
    config = pose() if "pose" in words else chest()
    if "quick" in words:
        shrink(config)
    return config


def chest():
    config = base.default("cxr")
    base.set_source(config, "chest_phantom", size=64, images=3000, prevalence="enriched")
    base.set_model(config, "resnet18", stages=(1, 1, 1, 1), width=32, head_width=0)
    config.batch_size = 32
    config.loss.class_weights = "none"
    config.evaluate_every = "4 epochs"
    config.ema_decay = 0.99
    config.augment.update({"rotation": 3.0, "scale": 0.05, "shear": 0.0, "crop_area": 1.0,
                           "crop_aspect": 0.0})
    base.add_stage(
        config, "all", "12 epochs",
        learning_rate=3e-3, optimizer__name="radam", optimizer__weight_decay=1e-2,
        decay__name="cosine",
    )
    return config


def pose():
    config = base.default("pose")
    base.set_source(config, "motion_phantom")
    # Neighbouring frames hardly differ: short clips fill a batch with more different poses.
    config.data.frames = 9
    base.set_model(
        config, "pose_temporal", dim=128, depth=2, heads=4, mlp_ratio=4.0, drop_path=0.0
    )
    config.batch_size = 96
    config.evaluate_every = "5 epochs"
    config.ema_decay = 0.99
    base.add_stage(
        config, "all", "20 epochs",
        learning_rate=5e-3, optimizer__name="radam", optimizer__weight_decay=1e-2,
        decay__name="cosine",
    )
    return config


def shrink(config):
    config.batch_size = 16
    config.evaluate_every = "4 steps"
    config.log_every = 2
    config.stages.all.duration = "8 steps"
    if config.task == "cxr":
        config.data.options.update({"images": 200, "size": 32})
        config.data.image_size = 32
        config.model.options.width = 4
    else:
        config.data.options.update({"sequences": 1, "seconds": 2.0})
        config.model.options.update({"dim": 32, "depth": 1})
