"""A linear probe on ChestX-ray14: how much a frozen backbone knows, in minutes.

The features of every image are computed once and kept in the workdir; then one linear layer is
trained on them. RAD-DINO's weights, at 518 px, come from the hub with the input that they expect:

    jaxcxr prepare chestxray14 --raw DIR --size 1024 --equalize none
    python -m jaxcxr.main --config=configs/cxr_probe.py --workdir=runs/probe \\
      --config.model.pretrained=hf://microsoft/rad-dino

`:convnext`, `:swin` and `:resnet50` probe other families at 224 px, from weights such as
`timm/convnext_base.fb_in22k`, `timm/swin_base_patch4_window7_224.ms_in22k` and
`timm/resnet50.a1_in1k`. `:quick` runs on 120 phantom images from random weights.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError

MODELS = {"": ("dinov2_base", 518), "convnext": ("convnext_base", 224), "swin": ("swin_base", 224),
          "resnet50": ("resnet50", 224)}


def get_config(arg: str = ""):
    if arg not in (*MODELS, "quick"):
        raise UserError(
            f"configs/cxr_probe.py takes convnext, swin, resnet50 or quick, not {arg!r}."
        )
    config = base.default("cxr")
    name, size = MODELS.get(arg, MODELS[""])
    base.set_source(config, "chestxray14", size=1024, equalize="none")
    base.set_model(config, name, head_width=0, head_dropout=0.0)
    config.data.image_size = size
    config.data.cache_features = True
    config.augment.update(base.NO_AUGMENTATION)
    config.batch_size = 256
    config.loss.class_weights = "none"
    config.evaluate_every = "5 epochs"
    config.checkpoint.every = "10 epochs"
    base.add_stage(
        config, "head", "50 epochs", (r"^head/",), learning_rate=1e-3, optimizer__name="adamw",
        optimizer__weight_decay=1e-4, decay__name="cosine",
    )
    if arg == "quick":
        quick(config)
    return config


def quick(config):
    """A small DINOv2 on phantom images at 56 px."""
    base.set_source(config, "chest_phantom", images=120, size=64)
    base.set_model(config, "dinov2_small", head_width=0, dim=32, depth=2, heads=2)
    config.model.random_backbone = True
    config.data.image_size = 56
    config.batch_size = 8
