"""Temporal transformer lifter on CMU motion capture: subjects 01 and 02, tested on 03 and 11.

    jaxcxr prepare cmu_mocap --raw allasfamc.zip
    python -m jaxcxr.main --config=configs/pose_temporal.py --workdir=runs/pose

`:spatiotemporal` alternates attention over joints and over time. `:quick` shrinks it to seconds.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError


def get_config(arg: str = ""):
    words = set(filter(None, arg.split(",")))
    if words - {"spatiotemporal", "quick"}:
        raise UserError(f"configs/pose_temporal.py takes spatiotemporal and quick, not {arg!r}.")
    config = base.default("pose")
    base.set_source(config, "cmu_mocap")
    if "spatiotemporal" in words:
        base.set_model(config, "pose_spatiotemporal")
    else:
        base.set_model(config, "pose_temporal", dim=128, depth=4, heads=8)
    config.data.frames = 27
    config.data.stride = 9
    config.batch_size = 64
    config.loss.velocity = 0.5
    config.evaluate_every = "2 epochs"
    config.ema_decay = 0.999
    base.add_stage(
        config, "all", "10 epochs",
        learning_rate=5e-4, optimizer__name="radam", optimizer__weight_decay=1e-2,
        decay__name="cosine",
    )
    if "quick" in words:
        config.stages.all.duration = "8 steps"
        config.evaluate_every = "4 steps"
        config.batch_size = 16
        config.log_every = 2
    return config
