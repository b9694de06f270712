"""The thesis recipe on ChestX-ray14: ResNet50 at 1024 px in three stages.

Stage 1 trains the head on the frozen ImageNet backbone, stage 2 the last convolutional stage too,
stage 3 everything (thesis sections 4.1 and 4.3, tables 4.1 and 4.2). RAdam, class-weighted
cross-entropy, histogram equalisation after resizing to 1024 x 1024.

    jaxcxr prepare chestxray14 --raw DIR --size 1024 --equalize hist
    python -m jaxcxr.main --config=configs/cxr_resnet50.py --workdir=runs/cxr \\
      --config.model.pretrained=resnet50.safetensors

Without `model.pretrained` stages 1 and 2 would train on a random backbone; `:quick` does.
Hardware: meant for 8 accelerators; use `--config.dtype=bfloat16` there. Not yet measured at full
size. Variants: `:64px` trains a ResNet18 from scratch at 64 px on a laptop; `:quick` shrinks the
recipe to a few steps on images stored at 1024 px.

Measured: `:64px` on a sample, see "Real data" in docs/results.md.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError

HEAD, LAST, ALL = (r"^head/",), (r"^head/", r"^backbone/layer4"), (r".*",)


def get_config(arg: str = ""):
    config = base.default("cxr")
    base.set_source(config, "chestxray14", size=1024, equalize="hist")
    base.set_model(config, "resnet50")
    config.data.image_size = 1024
    config.batch_size = 64
    radam = {"optimizer__name": "radam", "decay__name": "cosine"}
    base.add_stage(config, "head", "2 epochs", HEAD, learning_rate=1e-3, **radam)
    base.add_stage(config, "last", "3 epochs", LAST, learning_rate=3e-4, **radam)
    base.add_stage(config, "all", "10 epochs", ALL, learning_rate=1e-4, **radam)
    if arg == "64px":
        small(config)
    elif arg == "quick":
        quick(config)
    elif arg:
        raise UserError(f"configs/cxr_resnet50.py takes 64px or quick, not {arg!r}.")
    return config


def small(config):
    """64 px, a ResNet18 from scratch in one stage."""
    base.set_source(config, "chestxray14", size=64, equalize="hist")
    base.set_model(config, "resnet18", width=16, stem="small", head_width=64)
    config.data.image_size = 64
    config.batch_size = 32
    config.stage_order = ("all",)
    config.stages.all.duration = "15 epochs"
    config.stages.all.learning_rate = 1e-3
    config.evaluate_every = "3 epochs"


def quick(config):
    """The three stages on a few images: 4 steps each of 2 images, at 128 px."""
    config.model.random_backbone = True
    config.data.image_size = 128
    config.batch_size = 2
    config.log_every = 1
    config.evaluate_every = "6 steps"
    for name in config.stage_order:
        config.stages[name].duration = "4 steps"
