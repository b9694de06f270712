"""Composes ChestX-ray14 with COVID-19 data sets to 15 findings (thesis table 4.1).

A finding that nobody read for is unknown: COVID-19 data sets do not exclude a hernia. The films of
ChestX-ray14 predate 2020, so COVID-19 is absent there. `composition.compose` keeps each
patient in one split.

The RSNA's images, which COVIDx uses as pneumonia and healthy, are films of ChestX-ray14: 3,185
training images of COVIDx 8A are in its official test list. Nearly all of them are therefore
replaced by the original; where the RSNA's radiologists read pneumonia, Pneumonia is positive in
training. Images that the COVID-19 Radiography Database copied from the data sets above are left
out. SIIM-FISABIO-RSNA and COVIDx share films of RICORD and BIMCV, and covid-chestxray-dataset has
some of Hannover; no table identifies these, a note says so, and `jaxcxr audit` finds them by their
pixels.
"""

import dataclasses
import pathlib

from jaxcxr import registry
from jaxcxr.data.dataset import open_builder
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import (
    builder,
    chestxray14,
    composition,
    covid19_radiography,
    covidx,
    covidx_table,
    rsna_pneumonia,
)

NAME = "cxr15"

_OTHERS = (
    "siim_covid19",
    "covid_chestxray",
    "figure1",
    "actualmed",
    "covid19_image_repository",
    covid19_radiography.NAME,
)
_MAP = "rsna_to_chestxray14.csv"
_OVERLAPS = (
    ("siim_covid19", covidx.NAME),
    ("covid19_image_repository", covidx.NAME),
    ("covid19_image_repository", "covid_chestxray"),
)
# Parts of the Radiography Database's URLs: the RSNA, covid-chestxray, Figure 1 and Actualmed,
# Hannover.
_COPIED = ("rsna-pneumonia-detection-challenge", "/ieee8023/", "/agchung/", "/ml-workgroup/")


@dataclasses.dataclass(eq=False)
class Cxr15Config(builder.UnsplitConfig):
    """Options of the prepared composition.

    Attributes:
      val_fraction: share of the patients of training lists that go to validation.
      test_fraction: share of the patients of data sets without lists that go to the test split.
      list_version: of COVIDx's lists in RAW/labels, such as 8A.
      map: csv with the columns rsna_patientId, chestxray14_image, mse, if it is not
        rsna_to_chestxray14.csv in the raw folder.
      images: folder of ChestX-ray14's images, where they are not under RAW/chestxray14.
    """

    list_version: str = "8A"
    map: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)
    images: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)

    def __post_init__(self):
        self.list_version = covidx.checked_version(self.list_version)
        super().__post_init__()


class Cxr15(builder.XrayBuilder):
    """Official splits of ChestX-ray14 and COVIDx, the rest by a hash of the patient id."""

    name = NAME
    builder_config_class = Cxr15Config

    description = (
        "ChestX-ray14, COVIDx and other data sets of COVID-19, without a patient in two splits."
    )
    homepage = chestxray14.ChestXray14.homepage
    citation = f"{chestxray14.ChestXray14.citation} {covidx.Covidx.citation}"
    raw_content = (
        "chestxray14/ and at least one of: labels/ with COVIDx's lists, and the folders of its "
        f"sources; {'/, '.join(_OTHERS)}/"
    )

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Composes the rows of all data sets in the folder, with their images."""
        config = self.builder_config
        nih, listed, others = self._parts(raw)
        found = {name: [item.row for item in part.items] for name, part in others.items()}
        parts = {"chestxray14": nih.rows, covidx.NAME: listed.rows, **found}
        composed = composition.compose(
            {name: rows for name, rows in parts.items() if rows},
            self._matches(raw, listed),
            config.val_fraction,
        )
        kept = composed.parts
        folder = builder.given_path("images", config.images) if config.images else None
        collections = [
            chestxray14.find_images(
                builder.ImageListing(kept["chestxray14"], nih.notes),
                folder or raw / "chestxray14",
            )
        ]
        if listed.rows:
            table = builder.ImageListing(kept[covidx.NAME], listed.notes)
            collections.append(covidx.find_images(table, raw))
        collections += [_kept(part, kept.get(name, ())) for name, part in others.items()]
        return builder.Collection(
            items=tuple(item for part in collections for item in part.items),
            missing=tuple(name for part in collections for name in part.missing),
            notes=(
                _participants(kept),
                *_without_lists(raw),
                *(note for part in collections for note in part.notes),
                *composed.notes,
                *(
                    f"{one} and {other} share films, and nothing tells which; look for them in the "
                    "prepared data with jaxcxr audit"
                    for one, other in _OVERLAPS
                    if kept.get(one) and kept.get(other)
                ),
            ),
        )

    def _parts(
        self, raw: pathlib.Path
    ) -> tuple[builder.ImageListing, builder.ImageListing, dict[str, builder.Collection]]:
        """Reads ChestX-ray14, COVIDx (without rows if its lists are absent), and the others."""
        config = self.builder_config
        there = [name for name in _OTHERS if (raw / name).is_dir()]
        with_lists = (raw / "labels").is_dir()
        if not (raw / "chestxray14").is_dir() or not (there or with_lists):
            raise UserError(
                f"{NAME}: {raw} holds {', '.join([*there, *['labels'] * with_lists]) or 'nothing'}"
                f" of what is needed: {self.raw_content}"
            )
        nih = chestxray14.read_table(raw / "chestxray14", config.val_fraction)
        listed = builder.ImageListing((), ())
        if with_lists:
            listed = covidx.read_table(raw, config.list_version, config.val_fraction)
        others = {name: self._other(name, raw) for name in there}
        return nih, listed, others

    def _other(self, name: str, raw: pathlib.Path) -> builder.Collection:
        """Collects another data set by its own builder."""
        config = self.builder_config
        builder_class = registry.builder_class(name)
        options = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
        # TFDS looks for a prepared data set; in the raw folder it finds none.
        other = open_builder(builder_class, raw, **options)
        collection = other.collect(raw / name)
        if name == covid19_radiography.NAME:
            collection = _without_copies(collection, raw / name)
        return dataclasses.replace(
            collection,
            missing=tuple(f"{name}/{image_id}" for image_id in collection.missing),
            notes=tuple(f"{name}: {note}" for note in collection.notes),
        )

    def _matches(self, raw: pathlib.Path, listed: builder.ImageListing) -> dict[str, str]:
        """Maps the RSNA's patientId to the image of ChestX-ray14, if RSNA images are used."""
        images = [row for row in listed.rows if row.source == rsna_pneumonia.NAME]
        if not images:
            return {}
        given = self.builder_config.map
        path = builder.given_path("map", given) if given else raw / _MAP
        if not path.is_file():
            raise UserError(
                f"{NAME}: {len(images)} images of the RSNA are films of ChestX-ray14, and {path}, "
                "which would tell which, does not exist. Give --map FILE, a csv with "
                "rsna_patientId, chestxray14_image, mse"
            )
        matches = rsna_pneumonia.chestxray14_images(path)
        if not any(covidx_table.image_of(row)[1] in matches for row in images):
            raise UserError(f"{path}: none of the {len(images)} images of the RSNA is in it")
        return matches


def _without_copies(collection: builder.Collection, raw: pathlib.Path) -> builder.Collection:
    """Removes the Radiography Database's images that come from another source."""
    urls = covid19_radiography.read_table(raw, 0.0, 0.0).urls
    copies = {name for name, url in urls.items() if any(part in url.lower() for part in _COPIED)}
    left_out = [item.row.image_id for item in collection.items if item.row.image_id in copies]
    fact = "images are copies of unknown images of other sources and are left out"
    return builder.Collection(
        items=tuple(item for item in collection.items if item.row.image_id not in copies),
        missing=tuple(name for name in collection.missing if name not in copies),
        notes=(*collection.notes, *builder.note(left_out, fact)),
    )


def _kept(
    collection: builder.Collection, rows: tuple[builder.ImageRecord, ...]
) -> builder.Collection:
    items = {(item.row.source, item.row.image_id): item for item in collection.items}
    kept = (dataclasses.replace(items[row.source, row.image_id], row=row) for row in rows)
    return dataclasses.replace(collection, items=tuple(kept))


def _without_lists(raw: pathlib.Path) -> list[str]:
    """Notes the folders that are unused because COVIDx's lists are absent."""
    if (raw / "labels").is_dir():
        return []
    unused = [
        name for name in dict.fromkeys(covidx_table.SOURCES.values())
        if name not in _OTHERS and (raw / name).is_dir()
    ]
    return [
        f"{name}/ is not used: labels/ with COVIDx's lists, which select its images, is missing"
        for name in unused
    ]


def _participants(parts: dict[str, tuple[builder.ImageRecord, ...]]) -> str:
    there = ", ".join(f"{name} {len(rows)}" for name, rows in parts.items())
    absent = [name for name in (covidx.NAME, *_OTHERS) if name not in parts]
    return f"images by data set: {there}" + (f"; absent: {', '.join(absent)}" if absent else "")
