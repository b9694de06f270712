"""Temporal transformer lifter on CMU motion capture: subjects 01 and 02, tested on 03 and 11.

    jaxcxr prepare cmu_mocap --raw allasfamc.zip
    python -m jaxcxr.main --config=configs/pose_temporal.py --workdir=runs/pose

`:spatiotemporal` alternates attention over joints and over time. `:quick` shrinks it to seconds.
The name of another source of poses takes the place of `cmu_mocap`, as in `:human36m,quick`.

The checkpoint is chosen on validation clips of the training subjects. Measured: see "Real data" in
docs/results.md; about a minute on two CPU cores.
"""

from jaxcxr import config as base
from jaxcxr import registry
from jaxcxr.errors import UserError


def get_config(arg: str = ""):
    words = set(filter(None, arg.split(",")))
    known = [name for name in registry.SOURCES if registry.source(name).task == "pose"]
    chosen = [name for name in known if name in words] or ["cmu_mocap"]
    if words - {*chosen, "spatiotemporal", "quick"} or len(chosen) > 1:
        raise UserError(
            "configs/pose_temporal.py takes spatiotemporal, quick and one source of "
            f"{', '.join(known)}, not {arg!r}."
        )
    config = base.default("pose")
    base.set_source(config, chosen[0])
    if "spatiotemporal" in words:
        base.set_model(
            config, "pose_spatiotemporal", dim=64, depth=2, heads=4, drop_path=0.1
        )
        config.batch_size, duration, evaluate_every = 16, "5 epochs", "1 epoch"
    else:
        base.set_model(
            config, "pose_temporal", dim=128, depth=2, heads=4, mlp_ratio=4.0, drop_path=0.2
        )
        config.batch_size, duration, evaluate_every = 96, "40 epochs", "5 epochs"
    # Neighbouring frames hardly differ: short clips fill a batch with more different poses.
    config.data.frames = 9
    config.data.stride = 9
    config.loss.velocity = 0.5
    config.evaluate_every = evaluate_every
    config.ema_decay = 0.99
    base.add_stage(
        config, "all", duration,
        learning_rate=3e-3, optimizer__name="radam", optimizer__weight_decay=0.1,
        decay__name="cosine",
    )
    if "quick" in words:
        config.stages.all.duration = "8 steps"
        config.evaluate_every = "4 steps"
        config.batch_size = 16
        config.log_every = 2
    return config
