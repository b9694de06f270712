"""Registry of the data sources: one TFDS builder per data set, one file each."""

import dataclasses
import difflib
import importlib

from jaxcxr.errors import UserError

# name -> (module, builder class, task, generated): a generated source needs no raw data.
SOURCES = {
    "chest_phantom": ("chest_phantom", "ChestPhantom", "cxr", True),
    "chestxray14": ("chestxray14", "ChestXray14", "cxr", False),
    "covid_chestxray": ("covid_chestxray", "CovidChestXray", "cxr", False),
    "figure1": ("figure1", "Figure1", "cxr", False),
    "actualmed": ("actualmed", "Actualmed", "cxr", False),
    "covid19_radiography": ("covid19_radiography", "Covid19Radiography", "cxr", False),
    "covid19_image_repository": (
        "covid19_image_repository", "Covid19ImageRepository", "cxr", False,
    ),
    "rsna_pneumonia": ("rsna_pneumonia", "RsnaPneumonia", "cxr", False),
    "siim_covid19": ("siim_covid19", "SiimCovid19", "cxr", False),
    "covidx": ("covidx", "Covidx", "cxr", False),
    "cxr15": ("cxr15", "Cxr15", "cxr", False),
    "tbx11k": ("tbx11k", "Tbx11k", "cxr", False),
    "motion_phantom": ("motion_phantom", "MotionPhantom", "pose", True),
    "cmu_mocap": ("cmu_mocap", "CmuMocap", "pose", False),
    "bvh_mocap": ("bvh_mocap", "BvhMocap", "pose", False),
    "human36m": ("human36m", "Human36m", "pose", False),
    "humaneva": ("humaneva", "Humaneva", "pose", False),
    "mpi_inf_3dhp": ("mpi_inf_3dhp", "MpiInf3dhp", "pose", False),
    "motionbert": ("motionbert", "Motionbert", "pose", False),
    "totalcapture": ("totalcapture", "Totalcapture", "pose", False),
    "surreal": ("surreal", "Surreal", "pose", False),
    "jta": ("jta", "Jta", "pose", False),
}


def _entry(name: str):
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(f"no data source is called {name!r}.{hint} Sources: {', '.join(SOURCES)}.")
    return SOURCES[name]


def task_of(name: str) -> str:
    """Name of the task ("cxr" or "pose") that a source serves."""
    return _entry(name)[2]


def is_generated(name: str) -> bool:
    """Whether a source draws its own data and needs no raw files."""
    return _entry(name)[3]


def builder_class(name: str) -> type:
    """TFDS builder class of a source; its module is imported only here.

    Arguments:
      name: a key of `SOURCES`.

    Returns:
      A `tfds.core.GeneratorBasedBuilder` subclass with `Config`, the dataclass of its options, as
      attribute `builder_config_class`.

    Raises:
      UserError: no such source; the message names the nearest.
    """
    module, cls, _, _ = _entry(name)
    return getattr(importlib.import_module(f"{__name__}.{module}"), cls)


def option_fields(name: str) -> tuple[dataclasses.Field, ...]:
    """Options of a source: the fields which its config adds to TFDS's own.

    A field with `metadata={"variant": False}` does not change what is prepared (where the raw
    files lie, how many processes work); all others name the variant.
    """
    config = builder_class(name).builder_config_class
    base = next(cls for cls in config.__mro__ if cls.__module__.startswith("tensorflow_datasets"))
    inherited = {field.name for field in dataclasses.fields(base)}
    return tuple(field for field in dataclasses.fields(config) if field.name not in inherited)


def variant_options(name: str) -> dict:
    """Options that name a prepared variant of a source, with their defaults."""
    fields = option_fields(name)
    return {field.name: field.default for field in fields if field.metadata.get("variant", True)}
