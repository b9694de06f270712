"""ChestX-ray14 with COVID-19, pneumonia and healthy radiographs of other data sets: 15 findings.

Thesis table 4.1: ChestX-ray14 by its official lists, COVIDx by its own, and other data sets of
COVID-19. A label is unknown where nobody read for a finding: data sets of COVID-19 do not say that
there is no hernia. The films of ChestX-ray14 are from before 2020, so they do say that there is no
COVID-19. How a patient is kept from standing in two splits stands at `cxr15_composition.compose`.

The RSNA's images, which COVIDx takes for pneumonia and healthy, are films of ChestX-ray14: 3,185
training images of COVIDx 8A stand in its official test list. So nearly all of them come in as the
original; what the RSNA's radiologists read as pneumonia is Pneumonia in training. Images of the
COVID-19 Radiography Database that it copied from data sets above, of which it does not say which,
are left out. SIIM-FISABIO-RSNA and COVIDx both took films from RICORD and BIMCV, and
covid-chestxray-dataset some from Hannover; nothing tells which are the same, and a note says so.
`jaxcxr audit` looks for them by their pixels.
"""

import dataclasses
import pathlib
from typing import ClassVar

from jaxcxr import registry
from jaxcxr.data.dataset import open_builder
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import (
    builder as xray,
)
from jaxcxr.xray.sources import (
    chestxray14,
    chestxray14_table,
    covid19_radiography,
    covidx,
    covidx_table,
    cxr15_composition,
    rsna_pneumonia_table,
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
# In the URL that the Radiography Database gives: the RSNA, covid-chestxray, Figure 1 and
# Actualmed, Hannover.
_COPIED = ("rsna-pneumonia-detection-challenge", "/ieee8023/", "/agchung/", "/ml-workgroup/")


@dataclasses.dataclass(eq=False)
class Cxr15Config(xray.UnsplitConfig):
    """Options of the prepared composition.

    Attributes:
      val_fraction: share of the patients of training lists that go to validation.
      test_fraction: share of the patients of data sets without lists that go to the test split.
      list_version: of COVIDx's lists in RAW/labels, such as 8A.
      map: csv with the columns rsna_patientId, chestxray14_image, mse, if it is not
        rsna_to_chestxray14.csv in the raw folder.
      images: folder of ChestX-ray14's images, where they are not under RAW/chestxray14.
    """

    SOURCE: ClassVar[str] = NAME

    list_version: str = "8A"
    map: str = dataclasses.field(default="", metadata=xray.RUN_ONLY)
    images: str = dataclasses.field(default="", metadata=xray.RUN_ONLY)

    def __post_init__(self):
        self.list_version = covidx.checked_version(self.list_version, self.SOURCE)
        super().__post_init__()


class Cxr15(xray.XrayBuilder):
    """Official splits of ChestX-ray14 and COVIDx, the rest by a hash of the patient id."""

    name = NAME
    BUILDER_CONFIG_CLASS = Cxr15Config
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

    def collect(self, raw: pathlib.Path) -> xray.Collection:
        """Rows of all data sets that are there, composed, with their images."""
        config = self.builder_config
        nih, listed, others = self._parts(raw)
        found = {name: [item.row for item in part.items] for name, part in others.items()}
        parts = {"chestxray14": nih.rows, covidx.NAME: listed.rows, **found}
        composition = cxr15_composition.compose(
            {name: rows for name, rows in parts.items() if rows},
            self._matches(raw, listed),
            config.val_fraction,
        )
        kept = composition.parts
        folder = xray.given_path("images", config.images) if config.images else None
        collections = [
            chestxray14.find_images(
                xray.ImageListing(kept["chestxray14"], nih.notes),
                folder or raw / "chestxray14",
            )
        ]
        if listed.rows:
            table = xray.ImageListing(kept[covidx.NAME], listed.notes)
            collections.append(covidx.find_images(table, raw))
        collections += [_kept(part, kept.get(name, ())) for name, part in others.items()]
        return xray.Collection(
            items=tuple(item for part in collections for item in part.items),
            missing=tuple(name for part in collections for name in part.missing),
            notes=(
                _participants(kept),
                *_without_lists(raw),
                *(note for part in collections for note in part.notes),
                *composition.notes,
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
    ) -> tuple[xray.ImageListing, xray.ImageListing, dict[str, xray.Collection]]:
        """ChestX-ray14, COVIDx (without rows where its lists are absent), and the others."""
        config = self.builder_config
        there = [name for name in _OTHERS if (raw / name).is_dir()]
        with_lists = (raw / "labels").is_dir()
        if not (raw / "chestxray14").is_dir() or not (there or with_lists):
            raise UserError(
                f"{NAME}: {raw} holds {', '.join([*there, *['labels'] * with_lists]) or 'nothing'}"
                f" of what is needed: {self.raw_content}"
            )
        nih = chestxray14_table.read(raw / "chestxray14", config.val_fraction)
        listed = xray.ImageListing((), ())
        if with_lists:
            listed = covidx.read_table(raw, config.list_version, config.val_fraction)
        others = {name: self._other(name, raw) for name in there}
        return nih, listed, others

    def _other(self, name: str, raw: pathlib.Path) -> xray.Collection:
        """What the builder of another data set collects."""
        config = self.builder_config
        builder = registry.builder_class(name)
        options = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
        # TFDS looks for a prepared data set; in the raw folder it finds none.
        other = open_builder(builder, raw, **options)
        collection = other.collect(raw / name)
        if name == covid19_radiography.NAME:
            collection = _without_copies(collection, raw / name)
        return dataclasses.replace(
            collection,
            missing=tuple(f"{name}/{image_id}" for image_id in collection.missing),
            notes=tuple(f"{name}: {note}" for note in collection.notes),
        )

    def _matches(self, raw: pathlib.Path, listed: xray.ImageListing) -> dict[str, str]:
        """Image of ChestX-ray14 by the RSNA's patientId, if images of the RSNA take part."""
        images = [row for row in listed.rows if row.source == rsna_pneumonia_table.NAME]
        if not images:
            return {}
        given = self.builder_config.map
        path = xray.given_path("map", given) if given else raw / _MAP
        if not path.is_file():
            raise UserError(
                f"{NAME}: {len(images)} images of the RSNA take part, which are films of "
                f"ChestX-ray14; no file {path} tells which. Give with --map FILE a csv with "
                "rsna_patientId, chestxray14_image, mse"
            )
        matches = rsna_pneumonia_table.chestxray14_images(path)
        if not any(covidx_table.image_of(row)[1] in matches for row in images):
            raise UserError(f"{path}: none of the {len(images)} images of the RSNA is in it")
        return matches


def _without_copies(collection: xray.Collection, raw: pathlib.Path) -> xray.Collection:
    """The Radiography Database without the images that it took from another source."""
    urls = covid19_radiography.read_table(raw, 0.0, 0.0).urls
    copies = {name for name, url in urls.items() if any(part in url.lower() for part in _COPIED)}
    left_out = [item.row.image_id for item in collection.items if item.row.image_id in copies]
    fact = "images are copies from other sources, it is not known of which images, and are left out"
    return xray.Collection(
        items=tuple(item for item in collection.items if item.row.image_id not in copies),
        missing=tuple(name for name in collection.missing if name not in copies),
        notes=(*collection.notes, *xray.note(left_out, fact)),
    )


def _kept(collection: xray.Collection, rows: tuple[xray.ImageRecord, ...]) -> xray.Collection:
    items = {(item.row.source, item.row.image_id): item for item in collection.items}
    kept = (dataclasses.replace(items[row.source, row.image_id], row=row) for row in rows)
    return dataclasses.replace(collection, items=tuple(kept))


def _without_lists(raw: pathlib.Path) -> list[str]:
    """Notes of folders that COVIDx's lists would use, and no list is there."""
    if (raw / "labels").is_dir():
        return []
    unused = [
        name for name in dict.fromkeys(covidx_table.SOURCES.values())
        if name not in _OTHERS and (raw / name).is_dir()
    ]
    return [
        f"{name}/ takes no part: labels/ with COVIDx's lists, which say which of its images to "
        "take, is not there"
        for name in unused
    ]


def _participants(parts: dict[str, tuple[xray.ImageRecord, ...]]) -> str:
    there = ", ".join(f"{name} {len(rows)}" for name, rows in parts.items())
    absent = [name for name in (covidx.NAME, *_OTHERS) if name not in parts]
    return f"images by data set: {there}" + (f"; not there: {', '.join(absent)}" if absent else "")
