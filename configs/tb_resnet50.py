"""Tuberculosis on TBX11K, Montgomery and Shenzhen: ResNet50 at 512 px in three stages.

One binary output, trained as in configs/cxr_resnet50.py: the head, then the last convolutional
stage too, then everything. The test split is TBX11K's official validation list with the extra
images of that list; its own test set has no published labels.

    jaxcxr prepare tbx11k --raw DIR --lists all --size 512
    python -m jaxcxr.main --config=configs/tb_resnet50.py --workdir=runs/tb \\
      --config.model.pretrained=resnet50.safetensors

Hardware: meant for one accelerator or more. Not yet measured at full size. `:quick` shrinks the
recipe to a few steps.

`:extra` trains a narrow ResNet18 from scratch on the extra images alone, which fold after fold is a
cross-validation by patient:

    for fold in 0 1 2 3 4; do
      jaxcxr prepare tbx11k --raw DIR --lists extra --size 128 --allow-missing --fold $fold
      python -m jaxcxr.main --config=configs/tb_resnet50.py:extra --workdir=runs/tb$fold \\
        --config.data.options.fold=$fold
    done
    awk 'FNR > 1 || NR == 1' runs/tb[0-4]/predictions/test.csv > pooled.csv
    jaxcxr score --labels pooled.csv --predictions pooled.csv --out runs/tb_scores
    grep -o '^[^,]*MCUCXR[^,]*' pooled.csv > montgomery.txt  # for shenzhen.txt: CHNCXR
    jaxcxr score --labels pooled.csv --predictions pooled.csv --split-list montgomery.txt \\
      --out runs/tb_montgomery

Measured: see "Tuberculosis" in docs/results.md. `jaxcxr stress --workdir=runs/tbN` shows that most
of what the model knows is in the border of the images, without the lungs.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError

HEAD, LAST, ALL = (r"^head/",), (r"^head/", r"^backbone/layer4"), (r".*",)


def get_config(arg: str = ""):
    config = base.default("cxr")
    base.set_source(config, "tbx11k", lists="all", size=512, equalize="hist")
    base.set_model(config, "resnet50")
    config.data.image_size = 512
    config.batch_size = 64
    radam = {"optimizer__name": "radam", "decay__name": "cosine"}
    base.add_stage(config, "head", "5 epochs", HEAD, learning_rate=1e-3, **radam)
    base.add_stage(config, "last", "10 epochs", LAST, learning_rate=3e-4, **radam)
    base.add_stage(config, "all", "30 epochs", ALL, learning_rate=1e-4, **radam)
    if arg == "extra":
        extra(config)
    elif arg == "quick":
        quick(config)
    elif arg:
        raise UserError(f"configs/tb_resnet50.py takes extra or quick, not {arg!r}.")
    return config


def extra(config):
    """128 px, a narrow ResNet18 from scratch in one stage, on Montgomery and Shenzhen."""
    base.set_source(
        config, "tbx11k", lists="extra", allow_missing=True, size=128, equalize="hist"
    )
    base.set_model(config, "resnet18", width=16, head_width=0)
    config.data.image_size = 128
    config.batch_size = 32
    config.loss.class_weights = "none"
    config.ema_decay = 0.98
    config.evaluate_every = "10 epochs"
    config.stage_order = ("all",)
    stage = config.stages.all
    stage.duration = "40 epochs"
    stage.learning_rate = 3e-3
    stage.optimizer.weight_decay = 1e-2


def quick(config):
    """The three stages on a few images: 4 steps each of 2 images, at 128 px."""
    config.model.random_backbone = True
    config.data.image_size = 128
    config.batch_size = 2
    config.log_every = 1
    config.evaluate_every = "6 steps"
    for name in config.stage_order:
        config.stages[name].duration = "4 steps"
