"""What the torch counterpart of a config is: the SPEC of `torch_peer.py`."""

from typing import Any

from jaxcxr import registry
from jaxcxr.errors import UserError

# Class of a model -> its counterpart in the torch program.
_KINDS = {"PoseTemporal": "pose", "PoseSpatioTemporal": "pose", "ViT": "vit", "ResNet": "resnet"}
# What a model or a loss must be for its torch form to do the same work.
_PLAIN = {
    "pose": {
        "attention": "mha", "norm": "pre", "positions": "sinusoidal", "dropout": 0.0,
        "attention_dropout": 0.0, "causal": False, "uncertainty": False, "trajectory": False,
    },
    "vit": {
        "attention": "mha", "norm": "pre", "positions": "learned", "dropout": 0.0,
        "attention_dropout": 0.0, "head_width": 0, "head_dropout": 0.0,
    },
    "resnet": {"width": 64, "stem": "imagenet"},
}
_SHAPES = {
    "pose": ("dim", "depth", "heads", "mlp_ratio", "drop_path"),
    "vit": ("dim", "depth", "heads", "mlp_ratio", "drop_path", "patch", "pool"),
    "resnet": ("stages", "bottleneck", "head_width", "head_dropout"),
}
_POSE_TERMS = ("position", "velocity", "joint_weights")


def of(config, facts: dict[str, Any], device: str, compile_: str) -> dict[str, Any]:
    """The specification of a training step.

    Arguments:
      config: the resolved config; its first stage is meant.
      facts: what the data decide, `classes` or `joints`.
      device: "cpu" or "cuda".
      compile_: "auto", "on" or "off": torch.compile.

    Returns:
      What JSON can hold.

    Raises:
      UserError: the torch counterpart of this config is not written.
    """
    kind = _kind(config.model.name)
    options = config.model.options.to_dict()
    plain = dict(_PLAIN[kind])
    if config.model.name == "pose_spatiotemporal":
        plain["joint_attention"] = "mha"
    for name, value in plain.items():
        if options[name] != value:
            raise UserError(
                f"the torch counterpart has {name}={value!r}, not {options[name]!r}; set "
                f"--config.model.options.{name}={value} or measure without torch."
            )
    stage = config.stages[config.stage_order[0]]
    if tuple(stage.trainable) != (".*",):
        raise UserError(
            f"the torch counterpart trains everything, and stage {config.stage_order[0]!r} only "
            f"{tuple(stage.trainable)}; set config.stage_order to a stage that trains all."
        )
    data = (
        {"joint_tokens": config.model.name == "pose_spatiotemporal", "frames": config.data.frames,
         **_pose_loss(config.loss)}
        if kind == "pose" else {"image_size": config.data.image_size}
    )
    return {
        "kind": kind, "device": device, "compile": compile_, "batch": config.batch_size,
        "dtype": config.dtype, "ema_decay": config.ema_decay, **facts, **data,
        **{name: options[name] for name in _SHAPES[kind]},
        "optimizer": stage.optimizer.name, "learning_rate": stage.learning_rate,
        "weight_decay": stage.optimizer.weight_decay, "momentum": stage.optimizer.momentum,
        "clip_norm": stage.optimizer.clip_norm,
    }


def _kind(name: str) -> str:
    kind = _KINDS.get(registry.model(name).func.__name__)
    if kind is None:
        raise UserError(
            f"{name!r} has no torch counterpart; it takes pose_temporal, pose_spatiotemporal, "
            "vit_* and resnet*."
        )
    return kind


def _pose_loss(loss) -> dict[str, float]:
    for name, value in loss.items():
        if (value and name not in _POSE_TERMS) or (name == "joint_weights" and value != "uniform"):
            raise UserError(
                f"the torch counterpart has no config.loss.{name}={value!r}; of the loss it knows "
                "position and velocity, with joint_weights=uniform."
            )
    return {name: float(loss[name]) for name in ("position", "velocity")}
