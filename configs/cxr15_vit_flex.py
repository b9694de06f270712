"""ViT-S/16 with flexible heads on the thesis' 15 classes at 1024 px, from ImageNet weights.

The data set of `configs/cxr15_resnet50.py`, where its preparation is described. An image is 64x64
patches and the class token, 4,097 tokens. In each layer five heads see the patches up to 8 away
and the class token, and one head learns its span, from the whole image on, with a soft edge of 4
patches. Plain weights fit as they are, heads in order; positions are resampled from 224 px.

    python -m jaxcxr.main --config=configs/cxr15_vit_flex.py --workdir=runs/vit15_flex \\
      --config.model.pretrained=vit_small_patch16_224.safetensors

Parameters are those of plain heads and one span in each layer. A learned span costs what a head
costs that sees everything, until the model is pruned. What the model costs, counted by XLA for one
image on a CPU in float32; a layer is a block with its MLP, the memory that of the gradient of the
model with recomputed blocks, beside parameters and gradients (`bench models`):

    jaxcxr bench models --config=configs/cxr15_vit_flex.py --config.dtype=float32 \\
      --attention "1*adaptive(ramp=4,init=1,loss=0.01) + 5*fixed(8)" --attention shared

    attention            parameters   GFLOP  of plain  GFLOP/layer  of plain  gradient MB
    mha                  22,972,431   495.5    100.0%        41.23    100.0%       17,767
    1*adaptive+5*fixed   22,972,443   277.0     55.9%        23.04     55.9%        5,551
    shared               21,198,351   400.7     80.9%        33.32     80.8%       13,070

A single layer of each kind, by the same command with `--config.model.options.depth=1` and without
`--attention`; `shared` leads there, and the last column is that of a model of one layer:

    attention                          GFLOP/layer  of plain  gradient MB
    mha                                      41.23    100.0%        1,739
    1*adaptive+5*fixed                       23.04     55.9%          511
    local_global(window=8)                   26.75     64.9%          463
    adaptive_span(ramp=4)                    43.77    106.2%          345
    dynamic_span(ramp=4)                     43.79    106.2%          346
    local(block=128)                         16.20     39.3%          348
    local_2d(block=8,before=8,after=8)       18.67     45.3%          574
    longformer(window=256)                   19.86     48.2%          417
    strided                                  16.64     40.4%          376
    fixed                                    15.79     38.3%          299
    reformer                                 15.97     38.7%          540
    linformer(rank=256)                      18.19     44.1%          329
    performer                                18.26     44.3%          341
    fnet                                     11.31     27.4%          220
    fastformer                               14.96     36.3%          272
    transformer_xl                           69.53    168.6%        3,311

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
