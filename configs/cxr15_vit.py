"""ViT on the thesis' 15 classes at 224 px, fine-tuned from ImageNet weights.

The data set of `configs/cxr15_resnet50.py`, where its preparation is described; stored at 1024 px
it serves every image size.

    python -m jaxcxr.main --config=configs/cxr15_vit.py --workdir=runs/vit15 \\
      --config.model.pretrained=vit_small_patch16_224.safetensors

`:base` and `:tiny` choose the size (small by default). From random weights a ViT stays far below a
ResNet on this data. Hardware: meant for one accelerator or more. Not yet measured at full size.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError


def get_config(arg: str = "small"):
    if arg not in ("tiny", "small", "base"):
        raise UserError(f"configs/cxr15_vit.py takes tiny, small or base, not {arg!r}.")
    config = base.default("cxr")
    base.set_source(config, "cxr15", size=1024, equalize="hist")
    base.set_model(config, f"vit_{arg}", drop_path=0.1)
    config.data.image_size = 224
    config.batch_size = 256
    config.ema_decay = 0.9998
    base.add_stage(
        config, "all", "20 epochs",
        learning_rate=3e-4, optimizer__name="adamw", optimizer__weight_decay=0.05,
        optimizer__clip_norm=1.0, warmup__name="linear", warmup__steps=1000, decay__name="cosine",
    )
    return config
