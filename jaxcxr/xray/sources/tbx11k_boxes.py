"""Reads the boxes of TBX11K: COCO files in pixels of the released images, VOC in original pixels.

Both hold the same boxes. All three categories count as tuberculosis: active, obsolete (healed), and
"pulmonary", which no published annotation uses.
"""

import dataclasses
import json
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

from jaxcxr.errors import UserError

CATEGORIES = {
    1: "ActiveTuberculosis",
    2: "ObsoletePulmonaryTuberculosis",
    3: "PulmonaryTuberculosis",
}

_TUBERCULOSIS = 0  # its class index
_MOST_PIXELS = 1e6  # a side
_NONE = ((), (0, 0))

# Boxes (class index, x, y, width, height), and (height, width) of the image they are measured in.
ImageBoxes = tuple[tuple[tuple[float, ...], ...], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Finds boxes by image: in the COCO files or else in the VOC files.

    Attributes:
      coco: path in the lists -> boxes.
      raw: the raw folder; `annotations/xml/` in it may hold a file per image.
    """

    coco: dict[str, ImageBoxes]
    raw: pathlib.Path

    def of(self, name: str) -> ImageBoxes:
        """Returns boxes and the (height, width) they are measured in, or (), (0, 0) without boxes.

        Raises:
          UserError: its VOC file is malformed.
        """
        if name in self.coco:
            return self.coco[name]
        folder, _, file = name.rpartition("/")
        path = self.raw / "annotations" / "xml" / f"{pathlib.PurePath(file).stem}.xml"
        return read_xml(path) if folder == "tb" and path.is_file() else _NONE


def read(raw: pathlib.Path) -> Boxes:
    """Reads the COCO files of the training and validation lists that exist.

    Arguments:
      raw: folder with `annotations/json/` or `annotations/xml/`, or without boxes.

    Raises:
      UserError: a COCO file is malformed.
    """
    coco: dict[str, ImageBoxes] = {}
    for part in ("train", "val"):
        names = (f"TBX11K_{part}.json", f"all_{part}.json")  # the extra images have no boxes
        paths = [raw / "annotations" / "json" / name for name in names]
        path = next(filter(pathlib.Path.is_file, paths), None)
        coco |= read_json(path) if path else {}
    return Boxes(coco, raw)


def read_json(path: pathlib.Path) -> dict[str, ImageBoxes]:
    """Reads the boxes of a COCO file.

    Arguments:
      path: of a file with `images` and `annotations`.

    Returns:
      `file_name` of each image -> boxes and (height, width).

    Raises:
      UserError: the file is malformed; the message names the entry.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON file that can be read: {error}") from error
    boxes: dict[str, list[tuple[float, ...]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    names: dict[int, str] = {}
    for where, entry in _entries(content, "images", path):
        name = entry.get("file_name")
        if not isinstance(name, str) or not isinstance(entry.get("id"), int):
            raise UserError(f"{where} has no file_name or no whole number as id")
        height, width = (
            _positive(entry.get(side), f"{where}.{side}") for side in ("height", "width")
        )
        boxes[name], sizes[name], names[entry["id"]] = [], (height, width), name
    for where, entry in _entries(content, "annotations", path):
        image, category = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image, int) or image not in names:
            raise UserError(f"{where}: no image has the image_id {image!r}")
        if not isinstance(category, int) or category not in CATEGORIES:
            raise UserError(
                f"{where}: the category_id is {category!r}; expected one of "
                + ", ".join(f"{key} ({name})" for key, name in CATEGORIES.items())
            )
        corner_and_size = entry.get("bbox")
        if not isinstance(corner_and_size, list) or len(corner_and_size) != 4:
            raise UserError(f"{where}: bbox is not a list of x, y, width, height")
        boxes[names[image]].append(_box(corner_and_size, where))
    return {name: (tuple(found), sizes[name]) for name, found in boxes.items()}


def read_xml(path: pathlib.Path) -> ImageBoxes:
    """Reads the boxes of a VOC file, in pixels of the original, and its (height, width).

    Arguments:
      path: of a file with `size` and an `object` with `bndbox` for each box.

    Raises:
      UserError: the file is malformed.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{path}: no XML file that can be read: {error}") from error
    image_height, image_width = (
        _positive(_number(root, f"size/{side}", path), f"{path}: size/{side}")
        for side in ("height", "width")
    )
    boxes = []
    for number, entry in enumerate(root.findall("object"), 1):
        where = f"{path}: object {number}"
        if (name := (entry.findtext("name") or "").strip()) not in CATEGORIES.values():
            raise UserError(
                f"{where} is called {name!r}; expected {' or '.join(CATEGORIES.values())}"
            )
        left, top, right, bottom = (
            _number(entry, f"bndbox/{edge}", where) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        boxes.append(_box((left, top, right - left, bottom - top), where))
    return tuple(boxes), (image_height, image_width)


def _entries(content: Any, key: str, path: pathlib.Path):
    """Yields the entries of a list in a COCO file as (place for messages, dict)."""
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{path}: no list {key!r}; expected a COCO file")
    for i, entry in enumerate(entries):
        where = f"{path}: {key}[{i}]"
        if not isinstance(entry, dict):
            raise UserError(f"{where} is not an object; expected a COCO file")
        yield where, entry


def _box(values: Sequence[Any], where: str) -> tuple[float, ...]:
    """Checks x, y, width and height and puts the class before them."""
    if not all(map(_is_pixels, values)) or values[2] <= 0 or values[3] <= 0:
        raise UserError(
            f"{where}: {tuple(values)} is not a box; expected x, y, width, height in pixels"
        )
    return (float(_TUBERCULOSIS), *map(float, values))


def _positive(value: Any, where: str) -> int:
    if not _is_pixels(value) or value < 1 or value != int(value):
        raise UserError(f"{where} is {value!r}; expected a number of pixels")
    return int(value)


def _is_pixels(value: Any) -> bool:
    """Tells whether a value is a finite number of the size that pixels have."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) < _MOST_PIXELS


def _number(element: ElementTree.Element, place: str, where: Any) -> float:
    text = element.findtext(place)
    try:
        return float(text or "")
    except ValueError as error:
        raise UserError(f"{where}: {place} is {text!r}; expected a number") from error
