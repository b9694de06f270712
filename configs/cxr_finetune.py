"""Full fine-tuning on ChestX-ray14 with a learning rate that falls from layer to layer.

    jaxcxr prepare chestxray14 --raw DIR --size 1024 --equalize none
    python -m jaxcxr.main --config=configs/cxr_finetune.py --workdir=runs/finetune \\
      --config.model.pretrained=timm/convnext_base.fb_in22k

ConvNeXt-Base at 224 px; `:dinov2` (518 px, RAD-DINO's weights: `hf://microsoft/rad-dino`), `:swin`
and `:vit` choose another family. Each layer of the backbone learns at 0.8 (ViT and DINOv2: 0.65)
times the rate of the layer after it. Hardware: meant for 8 accelerators; use
`--config.dtype=bfloat16` there. Not yet measured at full size. `:quick` runs a few steps on phantom
images from random weights.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError

# model, pixels a side, factor from layer to layer
MODELS = {
    "": ("convnext_base", 224, 0.8), "swin": ("swin_base", 224, 0.8),
    "dinov2": ("dinov2_base", 518, 0.65), "vit": ("vit_base", 224, 0.65),
}


def get_config(arg: str = ""):
    if arg not in (*MODELS, "quick"):
        raise UserError(f"configs/cxr_finetune.py takes dinov2, swin, vit or quick, not {arg!r}.")
    config = base.default("cxr")
    name, size, factor = MODELS.get(arg, MODELS[""])
    base.set_source(config, "chestxray14", size=1024, equalize="none")
    base.set_model(config, name, head_width=0, drop_path=0.2)
    config.data.image_size = size
    config.batch_size = 128
    config.loss.class_weights = "none"
    config.ema_decay = 0.9998
    if arg == "quick":
        quick(config)
    base.add_stage(
        config, "all", "15 epochs" if arg != "quick" else "12 steps",
        learning_rate=1e-3 if factor == 0.65 else 2e-4, optimizer__name="adamw",
        optimizer__weight_decay=0.05, optimizer__clip_norm=1.0,
        optimizer__multiplier_rules=base.layer_decay(config, factor),
        warmup__name="linear", warmup__steps=500 if arg != "quick" else 4, decay__name="cosine",
    )
    return config


def quick(config):
    """A small ConvNeXt on phantom images at 64 px."""
    base.set_source(config, "chest_phantom", images=120, size=64)
    base.set_model(config, "convnext_tiny", stages=(1, 1, 2, 1), widths=(8, 16, 32, 64))
    config.data.image_size = 64
    config.batch_size = 8
    config.evaluate_every = "6 steps"
    config.ema_decay = 0.0
