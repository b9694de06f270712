"""The thesis' 15-class detector: ResNet50 at 1024 px in three stages on its composed data set.

ChestX-ray14 (official lists) with the COVID-19, pneumonia and healthy images of COVIDx and of the
other COVID-19 sources (thesis sections 4.1 to 4.3, tables 4.1 and 4.2). Stage 1 trains the head on
the frozen ImageNet backbone, stage 2 the last convolutional stage too, stage 3 everything. RAdam,
histogram equalisation after resizing, class-weighted cross-entropy over known labels: a COVID-19
source does not say "no hernia".

    jaxcxr prepare cxr15 --raw DIR --map rsna_to_chestxray14.csv
    jaxcxr audit DIR_OF_THE_PREPARED_DATA
    python -m jaxcxr.main --config=configs/cxr15_resnet50.py --workdir=runs/cxr15 \\
      --config.model.pretrained=resnet50.safetensors

Labels relabelled as in the thesis: `jaxcxr relabel --config=configs/cxr15_resnet50.py --members=5
--out=runs/relabel`, then train with `--config.data.labels=runs/relabel/labels.csv`.

Hardware: meant for 8 accelerators; use `--config.dtype=bfloat16` there. Not yet measured at full
size. `:quick` shrinks the recipe to a few steps at 128 px.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError

HEAD, LAST, ALL = (r"^head/",), (r"^head/", r"^backbone/layer4"), (r".*",)


def get_config(arg: str = ""):
    config = base.default("cxr")
    base.set_source(config, "cxr15", size=1024, equalize="hist")
    base.set_model(config, "resnet50")
    config.data.image_size = 1024
    config.batch_size = 64
    radam = {"optimizer__name": "radam", "decay__name": "cosine"}
    base.add_stage(config, "head", "2 epochs", HEAD, learning_rate=1e-3, **radam)
    base.add_stage(config, "last", "3 epochs", LAST, learning_rate=3e-4, **radam)
    base.add_stage(config, "all", "10 epochs", ALL, learning_rate=1e-4, **radam)
    if arg == "quick":
        config.model.random_backbone = True
        config.data.image_size = 128
        config.batch_size = 2
        config.log_every = 1
        config.evaluate_every = "6 steps"
        for name in config.stage_order:
            config.stages[name].duration = "4 steps"
    elif arg:
        raise UserError(f"configs/cxr15_resnet50.py takes quick, not {arg!r}.")
    return config
