"""DenseNet121, CheXNet's backbone, on the thesis' 15 classes at 224 px in three stages.

The data set of `configs/cxr15_resnet50.py`, where its preparation is described; stored at 1024 px
it serves every image size.

    python -m jaxcxr.main --config=configs/cxr15_densenet121.py --workdir=runs/densenet \\
      --config.model.pretrained=densenet121.safetensors

Stage 1 trains the head, stage 2 the last dense block too, stage 3 everything. Hardware: meant for
one accelerator or more. Not yet measured at full size.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError

HEAD, LAST, ALL = (r"^head/",), (r"^head/", r"^backbone/(denseblock4|norm5)"), (r".*",)


def get_config(arg: str = ""):
    if arg:
        raise UserError(f"configs/cxr15_densenet121.py takes no argument, got {arg!r}.")
    config = base.default("cxr")
    base.set_source(config, "cxr15", size=1024, equalize="hist")
    base.set_model(config, "densenet121")
    config.data.image_size = 224
    config.batch_size = 128
    radam = {"optimizer__name": "radam", "decay__name": "cosine"}
    base.add_stage(config, "head", "2 epochs", HEAD, learning_rate=1e-3, **radam)
    base.add_stage(config, "last", "3 epochs", LAST, learning_rate=3e-4, **radam)
    base.add_stage(config, "all", "10 epochs", ALL, learning_rate=1e-4, **radam)
    return config
