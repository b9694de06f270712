"""ViT-S/16 with flexible heads on the thesis' 15 classes at 1024 px, from ImageNet weights.

The data set of `configs/cxr15_resnet50.py`, where its preparation is described. An image is 64x64
patches and the class token, 4,097 tokens. In each layer five heads see the patches up to 8 away
and the class token, and one head learns its span, from the whole image on, with a soft edge of 4
patches. Plain weights fit as they are, heads in order; positions are resampled from 224 px.

    python -m jaxcxr.main --config=configs/cxr15_vit_flex.py --workdir=runs/vit15_flex \\
      --config.model.pretrained=vit_small_patch16_224.safetensors

Parameters are those of plain heads and one span in each layer. A learned span costs as much as a
head that sees everything, until the model is pruned. What the model costs beside plain heads and
other attention (`jaxcxr bench models`): see "Attention" in docs/results.md.

`:plain` is the same experiment with plain heads. The blocks are recomputed in the backward pass
and activations are bfloat16. Hardware: meant for accelerators; where a micro-batch of 8 images
does not fit, raise `--config.accumulate`. Neither speed nor memory on an accelerator nor accuracy
have been measured.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError

HEADS = {"": "1*adaptive(ramp=4,init=1,loss=0.01) + 5*fixed(8)", "plain": "mha"}


def get_config(arg: str = ""):
    if arg not in HEADS:
        raise UserError(f"configs/cxr15_vit_flex.py takes plain or nothing, not {arg!r}.")
    config = base.default("cxr")
    base.set_source(config, "cxr15", size=1024, equalize="hist")
    base.set_model(config, "vit_small", drop_path=0.1, attention=HEADS[arg], remat="full")
    config.data.image_size = 1024
    config.dtype = "bfloat16"
    config.batch_size = 64
    config.accumulate = 8
    config.ema_decay = 0.9998
    base.add_stage(
        config, "all", "20 epochs",
        learning_rate=1e-4, optimizer__name="adamw", optimizer__weight_decay=0.05,
        optimizer__clip_norm=1.0, warmup__name="linear", warmup__steps=1000, decay__name="cosine",
    )
    return config
