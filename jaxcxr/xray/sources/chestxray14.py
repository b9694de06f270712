"""Reads ChestX-ray14: 112,120 frontal radiographs of 30,805 patients, 14 findings from reports.

Wang et al., "ChestX-ray8", CVPR 2017; NIH Clinical Center. All images predate 2020, so COVID-19 is
absent.
"""

import dataclasses
import pathlib
from typing import ClassVar

from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources import chestxray14_table as table


@dataclasses.dataclass(eq=False)
class ChestXray14Config(builder.XrayConfig):
    """Options of the prepared ChestX-ray14.

    Attributes:
      val_fraction: share of the train_val patients that go to validation.
      images: folder of the images, where they are not under the raw folder.
    """

    SOURCE: ClassVar[str] = "chestxray14"

    images: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)


class ChestXray14(builder.XrayBuilder):
    """Official patient-disjoint split, validation carved from train_val by patient."""

    name = "chestxray14"
    builder_config_class = ChestXray14Config

    description = (
        "NIH ChestX-ray14, official test split, validation carved from train_val by a hash of the "
        "patient id."
    )
    homepage = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
    citation = "Wang et al., ChestX-ray8, CVPR 2017. Data: NIH Clinical Center."
    raw_content = "Data_Entry_2017*.csv, train_val_list.txt, test_list.txt and the images"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Returns the rows of the csv that are in a split list, with their images."""
        config = self.builder_config
        content = table.read(raw, config.val_fraction)
        folder = builder.given_path("images", config.images) if config.images else raw
        return find_images(content, folder)


def find_images(content: builder.ImageListing, folder: pathlib.Path) -> builder.Collection:
    """Finds the image of each row on disk.

    Arguments:
      content: the label table.
      folder: holds `images_001/images/` ... `images_012/images/`, or `images/`, or the files.
        Endings may differ, so that JPEG copies are found too.

    Raises:
      UserError: no such folder, or none of the images in it.
    """
    if not folder.is_dir():
        raise UserError(f"chestxray14: no image folder {folder}")
    places = [folder, folder / "images", *sorted(folder.glob("images_*"))]
    places += [place / "images" for place in places[2:]]
    files = builder.files_by_name(places, endings=False)
    paths = {row: files.get(pathlib.PurePath(row.image_id).stem) for row in content.rows}
    if not any(paths.values()):
        raise UserError(
            f"chestxray14: none of the {len(paths)} listed images is under {folder}; looked in "
            "images_*/images/, images_*/, images/ and the folder itself. Give their folder with "
            "--images DIR."
        )
    return builder.Collection.of(paths, content.notes)
