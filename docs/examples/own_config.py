"""A ResNet18 from scratch on chest phantoms, in two stages."""

from jaxcxr import config as base


def get_config(arg: str = ""):
    del arg  # what stands after the colon of --config=FILE:ARG
    config = base.default("cxr")
    base.set_source(config, "chest_phantom", size=64, images=1000)
    base.set_model(config, "resnet18", width=16, stem="small")
    config.batch_size = 16
    base.add_stage(config, "head", "1 epoch", trainable=(r"^head/",), learning_rate=1e-2)
    base.add_stage(
        config, "all", "5 epochs",
        learning_rate=1e-3, optimizer__name="adamw", optimizer__weight_decay=0.05,
        warmup__name="linear", warmup__steps=100, decay__name="cosine",
    )
    return config
