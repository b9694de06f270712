"""One detector for all data sets: ResNet50 at 224 px on a composed set with the union's findings.

A finding that a data set was never read for is unknown there and enters no loss. Each data set is
drawn equally often, so that a small one counts (`--config.data.sampling=plain` draws images alike).

    jaxcxr prepare compose chexpert=DIR mimic_cxr=DIR padchest=DIR chestxray14=DIR --size 512
    jaxcxr audit DIR_OF_THE_PREPARED_DATA
    python -m jaxcxr.main --config=configs/cxr_union.py --workdir=runs/union \\
      --config.model.pretrained=resnet50.safetensors

`:chexpert` and so on train on one data set alone, prepared with `--size 512 --schema union`, where
only what it was read for is learned. `:quick` (`:chexpert,quick`) trains a narrow ResNet18 at 64 px
for 16 steps, to try the machinery; its metrics mean nothing.

Hardware: meant for 8 accelerators; use `--config.dtype=bfloat16` there. Not yet measured at full
size.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError

SOURCES = (
    "compose", "chexpert", "mimic_cxr", "padchest", "vindr_cxr", "open_i", "kaggle_pneumonia",
)


def get_config(arg: str = ""):
    words = [word for word in arg.split(",") if word]
    quick = "quick" in words
    sources = [word for word in words if word != "quick"] or ["compose"]
    if len(sources) > 1 or sources[0] not in SOURCES:
        raise UserError(
            f"configs/cxr_union.py takes one of {', '.join(SOURCES)}, and quick, not {arg!r}."
        )
    config = base.default("cxr")
    base.set_source(config, sources[0], size=512, schema="union")
    base.set_model(config, "resnet50")
    config.data.sampling = "source_balanced"
    config.data.image_size = 224
    config.batch_size = 256
    config.ema_decay = 0.999
    base.add_stage(
        config, "all", "10 epochs",
        learning_rate=3e-4, optimizer__name="adamw", optimizer__weight_decay=1e-2,
        warmup__name="linear", warmup__steps=1000, decay__name="cosine",
    )
    if quick:
        shrink(config)
    return config


def shrink(config):
    base.set_model(config, "resnet18", stages=(1, 1, 1, 1), width=8, head_width=0)
    config.data.options.size = 64
    config.data.image_size = 64
    config.batch_size = 8
    config.log_every = 4
    config.evaluate_every = "8 steps"
    config.ema_decay = 0.9
    config.stages.all.duration = "16 steps"
    config.stages.all.learning_rate = 3e-3
    config.stages.all.warmup.steps = 4
