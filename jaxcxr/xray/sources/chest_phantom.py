"""Draws chest radiographs with 15 findings and their boxes, without raw data and in seconds.

`jaxcxr.xray.phantom` composes tissue, air and bone in millimetres and turns them into a film by
Beer-Lambert attenuation, scatter and noise. Use them to try a whole training run and to test
against known labels; they say nothing about patients.
"""

import dataclasses
import functools
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxcxr.data import staging
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.xray import phantom
from jaxcxr.xray.images import image_files as images
from jaxcxr.xray.phantom import population
from jaxcxr.xray.sources.radiograph_set import RadiographSet, xray_features, xray_record

_SIZES = (32, 2048)


@dataclasses.dataclass(eq=False)
class ChestPhantomConfig(tfds.core.BuilderConfig):
    """Holds the options of the chest phantoms; those that change the records name the variant.

    Attributes:
      size: side of the images, pixels.
      images: number of images in all splits together.
      seed: seed of patients, findings, anatomy and noise.
      prevalence: "nih" (the rates of ChestX-ray14, half of the images without a finding) or
        "enriched" (each finding in 13 % of the images).
      label_noise: probability that a recorded label is the opposite of the truth; boxes stay true.
      encoding: "png", "zstd", "raw" (all lossless) or "jpeg".
      workers: number of processes; 0 works in this process.
    """

    name: str = ""
    size: int = 64
    images: int = 3000
    seed: int = 0
    prevalence: str = "enriched"
    label_noise: float = 0.0
    encoding: str = "png"
    workers: int = dataclasses.field(default=0, metadata=RUN_ONLY)

    def __post_init__(self):
        population.rates(self.prevalence)
        _between("size", self.size, *_SIZES)
        _between("images", self.images, population.FEWEST_IMAGES, 10**7)
        _between("seed", self.seed, 0, 2**63 - 1)
        _between("label_noise", self.label_noise, 0.0, 0.5)
        _between("workers", self.workers, 0, 1024)
        if self.encoding not in images.ENCODINGS:
            raise UserError(
                f"chest_phantom: encoding is {self.encoding!r}; allowed: "
                f"{', '.join(images.ENCODINGS)}."
            )
        noise = f"_noise{self.label_noise:g}" if self.label_noise else ""
        encoding = "" if self.encoding == "png" else f"_{self.encoding}"
        self.name = self.name or (
            f"{self.size}px_{self.images}_{self.prevalence}_seed{self.seed}{noise}{encoding}"
        )


class ChestPhantom(RadiographSet):
    """Builds patient-disjoint splits, about 70/10/20, of `xray_features` records."""

    name = "chest_phantom"
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {"2.0.0": "Source and fingerprints in each record."}
    builder_config_class = ChestPhantomConfig

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn chest radiographs, PA and AP, several per patient, with 15 findings "
            "and their bounding boxes.",
            features=xray_features(self.classes),
        )

    def _split_generators(self, dl_manager) -> dict[str, list[staging.Staged]]:
        del dl_manager
        config = self.builder_config
        return self.staged(
            population.splits(config.seed, config.images),
            functools.partial(
                encode,
                seed=config.seed,
                prevalence=config.prevalence,
                size=config.size,
                label_noise=config.label_noise,
                encoding=config.encoding,
            ),
        )


def encode(
    item: tuple[int, int],
    *,
    seed: int,
    prevalence: str,
    size: int,
    label_noise: float,
    encoding: str,
) -> staging.Records:
    """Makes one record: draws the visit, records its labels, encodes the image.

    Arguments:
      item: (number of the patient, number of the visit).
      seed, prevalence, size, label_noise, encoding: as in `ChestPhantomConfig`.

    Returns:
      The record of `xray_features` by its image id.
    """
    patient, number = item
    visit = population.visit(seed, patient, number, prevalence)
    image, boxes = phantom.render(visit, size)
    image_id = f"{patient:06d}_{number:03d}"
    record = xray_record(
        image, images.encode(image, encoding),
        image_id=image_id, patient_id=f"{patient:06d}", source="chest_phantom",
        view=visit.view, sex=visit.sex, age=visit.age,
        labels=population.recorded_labels(visit, label_noise), boxes=boxes,
        original_size=(size, size),
    )
    return {image_id: record}


def _between(option: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise UserError(f"chest_phantom: {option} is {value}; allowed: {least} to {most}.")
