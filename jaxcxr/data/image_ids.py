"""Names images in tables, and finds the same image in another file."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxcxr.data.text_files import CsvFile
from jaxcxr.errors import UserError

# Names of the column as `text_files.fold` leaves them; of several, the first that is there counts.
COLUMNS = ("imageid", "imageindex", "image", "filename", "imagename", "imagepath", "path", "id")
# Not every last dot begins a file ending: DICOM's identifiers are numbers and dots.
_ENDING = re.compile(r"\.(?:png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|npy|nii|gz)$", re.IGNORECASE)


def read(file: CsvFile, repeated: bool = False) -> tuple[str, ...]:
    """Reads the image of each row, as text: `0000012` stays so.

    Arguments:
      file: a table with one of `COLUMNS`.
      repeated: an image may have several rows.

    Raises:
      UserError: there is no such column, a cell is empty, or an id stands twice.
    """
    column = file.column(COLUMNS)
    if column is None:
        raise UserError(
            f"{file.path}: no column of image ids among {', '.join(file.columns)}; call it "
            "image_id, Image Index, image, filename or id"
        )
    first: dict[str, int] = {}
    for i, row in enumerate(file.rows):
        if not row[column]:
            raise UserError(f"{file.where(i)}: no image id in column {file.columns[column]}")
        if first.setdefault(row[column], i) != i and not repeated:
            raise UserError(
                f"{file.where(i)}: a second row for {row[column]}, the first is line "
                f"{file.lines[first[row[column]]]}; remove one"
            )
    return tuple(row[column] for row in file.rows)


def match(wanted: Sequence[str], available: Sequence[str], asked, given) -> np.ndarray:
    """Finds each image in another file: by its whole id, else without folders, else without ending.

    Arguments:
      wanted, available: ids, each without repetitions.
      asked, given: their files, for messages.

    Returns:
      Indices into `available`, -1 where there is none, int64 `[wanted]`.

    Raises:
      UserError: an id matches several, or several match one, without folder or file ending.
    """
    result = np.full(len(wanted), -1)
    owners: dict[int, tuple[Callable, str]] = {}
    for key in (str, _without_folder, _without_ending):
        if (result >= 0).all():
            break
        places: dict[str, list[int]] = {}
        for place, name in enumerate(available):
            places.setdefault(key(name), []).append(place)
        for i in np.flatnonzero(result < 0).tolist():
            found = places.get(key(wanted[i]), ())
            if len(found) > 1:
                raise UserError(
                    f"{given}: {available[found[0]]} and {available[found[1]]} both match "
                    f"{wanted[i]} of {asked}; write the ids alike in both files"
                )
            if not found:
                continue
            used_by, owner = owners.setdefault(found[0], (key, wanted[i]))
            if owner == wanted[i]:
                result[i] = found[0]
            elif used_by is key:
                raise UserError(
                    f"{asked}: {owner} and {wanted[i]} both match {available[found[0]]} of "
                    f"{given}; write the ids alike in both files"
                )
    return result


def _without_folder(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _without_ending(name: str) -> str:
    return _ENDING.sub("", _without_folder(name))
