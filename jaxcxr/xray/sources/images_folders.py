"""Finds the images in a folder of one's own, and classes and splits in the names of folders."""

import pathlib
from collections.abc import Sequence

from jaxcxr.data import folders, image_paths
from jaxcxr.errors import UserError, some
from jaxcxr.xray.images import film_files
from jaxcxr.xray.sources.builder import note

_MASKS = {"mask", "masks", "segmentation", "segmentations"}
_PLAIN = {"image", "images", "img", "imgs", "png", "jpg", "jpeg", "dicom", "dcm"}
_HEAD = 132  # bytes up to the end of DICOM's magic word


def find(folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], tuple[str, ...]]:
    """Finds the images in a folder and below it, links included.

    Returns:
      Path relative to the folder, with `/`, -> file; and remarks on what was left out.

    Raises:
      UserError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"images: no folder {folder}; give that of the images by --images DIR")
    found: dict[str, pathlib.Path] = {}
    others: list[str] = []
    below = folders.files_below(folder)
    for path in map(pathlib.Path, below.paths):
        if film_files.is_film(path):
            found[path.relative_to(folder).as_posix()] = path
        else:
            others.append(path.name)
    if not found:
        raise UserError(
            f"images: no image in {folder}; images end in {', '.join(film_files.ENDINGS)}, or are "
            "DICOM"
        )
    remarks = filter(None, [below.remark()])
    return found, (*note(others, "files are no images"), *remarks)


def is_dicom(path: pathlib.Path) -> bool:
    """Tells whether a file is DICOM."""
    with path.open("rb") as file:
        return film_files.is_dicom(path, file.read(_HEAD))


def classes_of(
    names: Sequence[str], folder: pathlib.Path
) -> tuple[list[str], list[str], list[str], tuple[str, ...]]:
    """Reads the class and the split of images from their folders: `CLASS/...` or `SPLIT/CLASS/...`.

    Arguments:
      names: relative paths.
      folder: that they lie in, for messages.

    Returns:
      The images taken, the class of each, the split of each ("" if folders name none), remarks.

    Raises:
      UserError: an image lies in no class folder, or the folders do not look like classes.
    """
    parts = {name: name.split("/")[:-1] for name in names}
    tops = {path[0] for path in parts.values() if path}
    if len(tops) == 1 and not image_paths.split_word(next(iter(tops))):
        inner = {path[1] for path in parts.values() if len(path) > 1} - _MASKS
        if len(inner) > 1 and next(iter(tops)).casefold() not in _MASKS:
            parts = {name: path[1:] for name, path in parts.items()}  # one folder around all
            tops = inner
    split = bool(tops) and all(image_paths.split_word(top) for top in tops)
    taken, classes, splits, masks, loose = [], [], [], [], []
    for name, path in parts.items():
        place = path[split:]
        if _MASKS & {part.casefold() for part in place[1:]}:
            masks.append(name)
        elif not place or place[0].casefold() in _PLAIN:
            loose.append(name)
        else:
            taken.append(name)
            classes.append(place[0])
            splits.append(image_paths.split_word(path[0]) if split else "")
    if loose:
        raise UserError(
            f"images: {len(loose)} images of {folder} lie in no folder of a class: {some(loose)}. "
            "Give a table of labels by --labels FILE, or put each image into a folder named by its "
            "class (or SPLIT/CLASS with train, val, test)."
        )
    if 2 * len(set(classes)) > len(taken):
        raise UserError(
            f"images: {folder} has {len(set(classes))} folders for {len(taken)} images, which look "
            "like no classes; give a table of labels by --labels FILE"
        )
    return taken, classes, splits, note(masks, "files in folders of masks are left out")
