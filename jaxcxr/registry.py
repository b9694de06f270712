"""Registers the tasks, data sources and models that a config can name.

Modules are imported only when asked for: `config` and `train` know every name and nothing of the
packages behind them. To add your own, add a line here.
"""

import dataclasses
import functools
import importlib
from typing import Any

from jaxcxr.errors import UserError, did_you_mean

# name -> module:class, see `jaxcxr.task.Task`.
TASKS = {"cxr": "jaxcxr.xray.task:XrayTask", "pose": "jaxcxr.pose.task:PoseTask"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A data source.

    Attributes:
      builder: module:class of its TFDS builder.
      task: the task it serves.
      generated: whether it draws its own data and needs no raw files.
    """

    builder: str
    task: str
    generated: bool = False


SOURCES = {
    "chest_phantom": Source("jaxcxr.xray.sources.chest_phantom:ChestPhantom", "cxr", True),
    "chestxray14": Source("jaxcxr.xray.sources.chestxray14:ChestXray14", "cxr"),
    "covid_chestxray": Source("jaxcxr.xray.sources.covid_chestxray:CovidChestXray", "cxr"),
    "figure1": Source("jaxcxr.xray.sources.covid_chestxray:Figure1", "cxr"),
    "actualmed": Source("jaxcxr.xray.sources.covid_chestxray:Actualmed", "cxr"),
    "covid19_radiography": Source(
        "jaxcxr.xray.sources.covid19_radiography:Covid19Radiography", "cxr"
    ),
    "covid19_image_repository": Source(
        "jaxcxr.xray.sources.covid19_image_repository:Covid19ImageRepository", "cxr"
    ),
    "rsna_pneumonia": Source("jaxcxr.xray.sources.rsna_pneumonia:RsnaPneumonia", "cxr"),
    "siim_covid19": Source("jaxcxr.xray.sources.siim_covid19:SiimCovid19", "cxr"),
    "covidx": Source("jaxcxr.xray.sources.covidx:Covidx", "cxr"),
    "cxr15": Source("jaxcxr.xray.sources.cxr15:Cxr15", "cxr"),
    "tbx11k": Source("jaxcxr.xray.sources.tbx11k:Tbx11k", "cxr"),
    "images": Source("jaxcxr.xray.sources.images:Images", "cxr"),
    "chexpert": Source("jaxcxr.xray.sources.chexpert:Chexpert", "cxr"),
    "mimic_cxr": Source("jaxcxr.xray.sources.mimic_cxr:MimicCxr", "cxr"),
    "padchest": Source("jaxcxr.xray.sources.padchest:Padchest", "cxr"),
    "vindr_cxr": Source("jaxcxr.xray.sources.vindr_cxr:VindrCxr", "cxr"),
    "open_i": Source("jaxcxr.xray.sources.open_i:OpenI", "cxr"),
    "kaggle_pneumonia": Source("jaxcxr.xray.sources.kaggle_pneumonia:KagglePneumonia", "cxr"),
    "compose": Source("jaxcxr.xray.sources.compose:Compose", "cxr"),
    "motion_phantom": Source("jaxcxr.pose.sources.motion_phantom:MotionPhantom", "pose", True),
    "cmu_mocap": Source("jaxcxr.pose.sources.cmu_mocap:CmuMocap", "pose"),
    "bvh_mocap": Source("jaxcxr.pose.sources.bvh_mocap:BvhMocap", "pose"),
    "human36m": Source("jaxcxr.pose.sources.human36m:Human36m", "pose"),
    "humaneva": Source("jaxcxr.pose.sources.humaneva:Humaneva", "pose"),
    "mpi_inf_3dhp": Source("jaxcxr.pose.sources.mpi_inf_3dhp:MpiInf3dhp", "pose"),
    "motionbert": Source("jaxcxr.pose.sources.motionbert:Motionbert", "pose"),
    "totalcapture": Source("jaxcxr.pose.sources.totalcapture:Totalcapture", "pose"),
    "surreal": Source("jaxcxr.pose.sources.surreal:Surreal", "pose"),
    "jta": Source("jaxcxr.pose.sources.jta:Jta", "pose"),
}


@dataclasses.dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
      module: module:attribute, a Linen class or a `functools.partial` of one with other defaults.
      task: the task it serves.
    """

    module: str
    task: str


MODELS = {
    "resnet18": Model("jaxcxr.models.vision.resnet:resnet18", "cxr"),
    "resnet26": Model("jaxcxr.models.vision.resnet:resnet26", "cxr"),
    "resnet50": Model("jaxcxr.models.vision.resnet:resnet50", "cxr"),
    "resnet101": Model("jaxcxr.models.vision.resnet:resnet101", "cxr"),
    "densenet121": Model("jaxcxr.models.vision.densenet:densenet121", "cxr"),
    "vit_tiny": Model("jaxcxr.models.vision.vit:vit_tiny", "cxr"),
    "vit_small": Model("jaxcxr.models.vision.vit:vit_small", "cxr"),
    "vit_base": Model("jaxcxr.models.vision.vit:vit_base", "cxr"),
    "dinov2_small": Model("jaxcxr.models.vision.vit:dinov2_small", "cxr"),
    "dinov2_base": Model("jaxcxr.models.vision.vit:dinov2_base", "cxr"),
    "dinov2_large": Model("jaxcxr.models.vision.vit:dinov2_large", "cxr"),
    "convnext_tiny": Model("jaxcxr.models.vision.convnext:convnext_tiny", "cxr"),
    "convnext_small": Model("jaxcxr.models.vision.convnext:convnext_small", "cxr"),
    "convnext_base": Model("jaxcxr.models.vision.convnext:convnext_base", "cxr"),
    "swin_tiny": Model("jaxcxr.models.vision.swin:swin_tiny", "cxr"),
    "swin_base": Model("jaxcxr.models.vision.swin:swin_base", "cxr"),
    "pose_temporal": Model("jaxcxr.models.pose.transformers:PoseTemporal", "pose"),
    "pose_convolution": Model("jaxcxr.models.pose.convolutions:PoseConvolution", "pose"),
    "pose_frame": Model("jaxcxr.models.pose.convolutions:PoseFrame", "pose"),
    "pose_spatiotemporal": Model(
        "jaxcxr.models.pose.joint_transformers:PoseSpatioTemporal", "pose"
    ),
    "pose_dual_stream": Model("jaxcxr.models.pose.joint_transformers:PoseDualStream", "pose"),
    "pose_recurrent": Model("jaxcxr.models.pose.sequence_lifters:PoseRecurrent", "pose"),
    "pose_seq2seq": Model("jaxcxr.models.pose.sequence_lifters:PoseSeq2Seq", "pose"),
    "pose_encoder_decoder": Model(
        "jaxcxr.models.pose.sequence_lifters:PoseEncoderDecoder", "pose"
    ),
}

# Fields of a model that no experiment chooses: Linen's own, those that the trainer sets, and
# `decode`, with which `streaming` runs a trained model.
_NOT_OPTIONS = {"parent", "name", "dtype", "axis_name", "colors", "decode"}


def task(name: str) -> Any:
    """Returns the class of a task.

    Raises:
      UserError: no such task.
    """
    if name not in TASKS:
        raise UserError(f"task is {name!r}; allowed: {', '.join(TASKS)}.")
    return _resolve(TASKS[name])


def source(name: str) -> Source:
    """Returns the entry of a data source.

    Raises:
      UserError: no such source; the message names the nearest.
    """
    if name not in SOURCES:
        raise UserError(
            f"no data source is called {name!r}.{did_you_mean(name, SOURCES)} "
            f"Sources: {', '.join(SOURCES)}."
        )
    return SOURCES[name]


def builder_class(name: str) -> Any:
    """Returns the TFDS builder class of a source.

    Returns:
      A `tfds.core.GeneratorBasedBuilder` subclass with `Config`, the dataclass of its options, as
      attribute `builder_config_class`.

    Raises:
      UserError: no such source; the message names the nearest.
    """
    return _resolve(source(name).builder)


def source_fields(name: str) -> tuple[dataclasses.Field, ...]:
    """Returns the options of a source: the fields that its config adds to TFDS's own.

    A field with `metadata={"variant": False}` does not change the prepared data (the folder of raw
    files, the number of processes); all others name the variant.
    """
    config = builder_class(name).builder_config_class
    base = next(cls for cls in config.__mro__ if cls.__module__.startswith("tensorflow_datasets"))
    inherited = {field.name for field in dataclasses.fields(base)}
    return tuple(field for field in dataclasses.fields(config) if field.name not in inherited)


def source_options(name: str) -> dict[str, Any]:
    """Returns the options that name a prepared variant of a source, with their defaults."""
    fields = source_fields(name)
    return {field.name: field.default for field in fields if field.metadata.get("variant", True)}


def model(name: str) -> functools.partial:
    """Returns the Linen class of a model with the model's own defaults.

    Raises:
      UserError: no such model; the message names the nearest.
    """
    if name not in MODELS:
        raise UserError(
            f"no model is called {name!r}.{did_you_mean(name, MODELS)} Models: {', '.join(MODELS)}."
        )
    found = _resolve(MODELS[name].module)
    return found if isinstance(found, functools.partial) else functools.partial(found)


def model_options(name: str) -> dict[str, Any]:
    """Returns every option of a model with its default: a number, boolean, string or tuple.

    Raises:
      UserError: no such model; the message names the nearest.
    """
    made = model(name)
    linen: Any = made.func
    fields = (f for f in dataclasses.fields(linen) if f.name not in _NOT_OPTIONS)
    return {f.name: made.keywords.get(f.name, f.default) for f in fields}


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
