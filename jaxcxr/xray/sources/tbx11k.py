"""Reads TBX11K: tuberculosis in 11,200 radiographs, with the extra images of other data sets.

Liu et al., "Rethinking Computer-Aided Tuberculosis Diagnosis", CVPR 2020. The folder of an image
gives its one label, Tuberculosis: absent in `health` and `sick` (another disease), present in `tb`,
active or healed, and unpublished for `test`. In `extra/mc+shenzhen` (Montgomery County and
Shenzhen, Jaeger et al. 2014) the name ends with the label, `_1` or `_0`; in `extra/da+db` (New
Delhi) it begins with `p` or `n`.

The official validation list is the test split here, as it is the only public held-out one;
validation is carved from the training list. The extra images alone are pooled and divided into
folds, one of which is the test split. There are no patient ids: Montgomery, Shenzhen and TBX11K
count each image as a patient. Two images of da+db are copies of images in its other list and are
left out. Two more pairs of copies, each within one list, stay; folds can separate them, which
`jaxcxr audit` reports.
"""

import dataclasses
import hashlib
import pathlib
import re

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.data.text_files import read_text
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder, tbx11k_boxes

NAME = "tbx11k"
CLASSES = ("Tuberculosis",)
LISTS = ("tbx11k", "all", "extra")

_FOLDS = 5
_PREFIX = {"tbx11k": "TBX11K", "all": "all", "extra": "all"}
_HIDDEN = "all_test"
_LABELS = {"health": NEGATIVE, "sick": NEGATIVE, "tb": POSITIVE, "test": UNKNOWN}
_NLM = {"MCUCXR": "montgomery", "CHNCXR": "shenzhen"}
_NAME = re.compile(
    r"(?P<folder>health|sick|tb|test)/(?P<own>\w+)\.(png|jpg)"
    r"|extra/da\+db/(?P<part>train|val)/(?P<dadb>(?P<letter>[pn])x?\d+)\.(png|jpg)"
    r"|extra/mc\+shenzhen/(train|val)/(?P<nlm>(?P<place>MCUCXR|CHNCXR)_\d+)_(?P<digit>[01])"
    r"\.(png|jpg)",
    re.ASCII,
)
# Byte for byte the same images: of each pair, the one of the training list is left out.
_COPIES = {
    "extra/da+db/train/n28.png": "extra/da+db/val/n1.png",
    "extra/da+db/train/n6.png": "extra/da+db/val/n32.png",
}


@dataclasses.dataclass(eq=False)
class Tbx11kConfig(builder.XrayConfig):
    """Options of the prepared TBX11K.

    Attributes:
      val_fraction: share of the patients not in the test split that go to validation.
      lists: "tbx11k" (its own images), "all" (with the extra ones of other data sets) or "extra"
        (these alone, pooled and divided into folds).
      include_hidden: add the hidden test set, whose labels are unknown, to the test split.
      folds: into how many folds the patients of "extra" are divided.
      fold: which of these folds is the test split, from 0.
    """

    lists: str = "tbx11k"
    include_hidden: bool = False
    folds: int = _FOLDS
    fold: int = 0

    def __post_init__(self):
        super().__post_init__()
        self._choice("lists", LISTS)
        self._between("folds", 2, 1000)
        self._between("fold", 0, self.folds - 1)
        extra = self.lists == "extra"
        if not extra and (self.fold, self.folds) != (0, _FOLDS):
            raise UserError(
                f"fold and folds need lists=extra; lists={self.lists} has an official split"
            )
        if extra and self.include_hidden:
            raise UserError("include_hidden needs lists=tbx11k or all, not extra")


class Tbx11k(builder.XrayBuilder):
    """Official validation list as test split; the extra images alone by folds."""

    name = NAME
    builder_config_class = Tbx11kConfig

    classes = CLASSES
    description = (
        "TBX11K, its official validation list as test split, validation carved from its training "
        "list; or its extra images alone, pooled and split into folds by a hash of the patient id."
    )
    homepage = "https://mmcheng.net/tb/"
    citation = (
        "Liu et al., CVPR 2020. Montgomery and Shenzhen: Jaeger et al., Quant. Imaging Med. Surg. "
        "2014, U.S. National Library of Medicine."
    )
    raw_content = "lists/, annotations/ and imgs/"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Rows of the lists, with their images in `imgs/`."""
        config = self.builder_config
        table = read_table(
            raw, config.lists, config.val_fraction, fold=config.fold, folds=config.folds,
            include_hidden=config.include_hidden,
        )
        paths = {row: raw / "imgs" / row.image_id for row in table.rows}
        there = {row: path if path.is_file() else None for row, path in paths.items()}
        return builder.Collection.of(there, table.notes)


def read_table(
    raw: pathlib.Path,
    lists: str = "tbx11k",
    val_fraction: float = 0.125,
    *,
    fold: int = 0,
    folds: int = _FOLDS,
    include_hidden: bool = False,
) -> builder.ImageListing:
    """Reads the lists and the boxes.

    Arguments:
      raw: folder with `lists/` and, if there are any boxes, `annotations/json/` or
        `annotations/xml/`.
      lists, val_fraction, fold, folds, include_hidden: as in `Tbx11kConfig`.

    Returns:
      One row per image, named by its path in the lists. Repeated lines, known copies and, unless
      asked for, hidden images are left out and noted.

    Raises:
      UserError: a file is absent or malformed, or an image is in two lists.
    """
    if not raw.is_dir():
        raise UserError(f"{NAME}: no folder {raw}; give the raw data with --raw DIR")
    parts = {part: _list_path(raw, f"{_PREFIX[lists]}_{part}") for part in ("train", "val")}
    hidden = _list_path(raw, _HIDDEN)
    if include_hidden:
        parts["hidden"] = hidden
    listed, repeated = _listed(parts)
    if lists == "extra":
        listed = {name: part for name, part in listed.items() if name.startswith("extra/")}
    copies = [name for name in listed if _COPIES.get(name) in listed]
    boxes = tbx11k_boxes.Boxes({}, raw) if lists == "extra" else tbx11k_boxes.read(raw)
    rows = []
    for name, part in listed.items():
        source, patient_id, label = identity(name)
        if lists == "extra":
            test = fold_of(patient_id, folds) == fold
        else:
            test = part != "train"
        found, box_size = boxes.of(name)
        split = "test" if test else builder.split_of(patient_id, val_fraction)
        rows.append(builder.ImageRecord(
            name, patient_id, source, split, (label,), boxes=found, box_size=box_size
        ))
    unasked = []
    if lists != "extra" and not include_hidden and hidden.exists():
        unasked = read_list(hidden)
    notes = (
        *builder.note(repeated, "lines of the lists are repetitions and count once"),
        *builder.note(copies, "images of da+db are copies of images in its other list; left out"),
        *builder.note(unasked, "images of the hidden test set have no published label; left out"),
    )
    return builder.ImageListing(tuple(row for row in rows if row.image_id not in copies), notes)


def read_list(path: pathlib.Path) -> list[str]:
    """Reads a list of images, one path relative to `imgs/` per line.

    Raises:
      UserError: the file is absent or empty, or a line is not one of the data set's paths.
    """
    names = []
    for number, line in enumerate(map(str.strip, read_text(path).splitlines()), 1):
        if line and not _NAME.fullmatch(line):
            raise UserError(
                f"{path}:{number}: {line[:80]!r} is not an image of TBX11K; expected a path such "
                "as tb/tb0005.png or extra/mc+shenzhen/train/MCUCXR_0399_1.png"
            )
        names += [line] if line else []
    if not names:
        raise UserError(f"{path}: empty; expected one image per line")
    return names


def identity(name: str) -> tuple[str, str, int]:
    """Derives source, patient and label of an image from its name.

    Arguments:
      name: path in the lists, such as `tb/tb0005.png`.

    Returns:
      ("tbx11k", "montgomery", "shenzhen" or "dadb"; patient id; 1, 0 or -1).

    Raises:
      UserError: the data set has no image of this name.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise UserError(f"{NAME}: {name!r} is not an image of TBX11K")
    if match["folder"]:
        return NAME, f"{NAME}/{match['own']}", _LABELS[match["folder"]]
    if match["dadb"]:
        label = POSITIVE if match["letter"] == "p" else NEGATIVE
        return "dadb", f"dadb/{match['part']}/{match['dadb']}", label
    source = _NLM[match["place"]]
    return source, f"{source}/{match['nlm']}", POSITIVE if match["digit"] == "1" else NEGATIVE


def fold_of(patient_id: str, folds: int) -> int:
    """Assigns a patient a fold, 0 to folds - 1, by the id alone and independent of `split_of`."""
    digest = hashlib.sha256(f"fold of {patient_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % folds


def _list_path(raw: pathlib.Path, name: str) -> pathlib.Path:
    return raw / "lists" / f"{name}.txt"


def _listed(parts: dict[str, pathlib.Path]) -> tuple[dict[str, str], list[str]]:
    """Maps each image to its list; also returns the images that a list repeats."""
    listed: dict[str, str] = {}
    repeated = []
    for part, path in parts.items():
        for name in read_list(path):
            if name not in listed:
                listed[name] = part
            elif listed[name] == part:
                repeated.append(name)
            else:
                raise UserError(f"{path}: {name} is in {parts[listed[name]].name} too")
    return listed, repeated
