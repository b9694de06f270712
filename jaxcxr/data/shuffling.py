"""TFDS's shuffling of a split on disk, without TensorFlow and with a progress bar.

TFDS sorts the records of a split by the hashes of their keys before it writes the shards. Beyond
1 GB it keeps them in bucket files meanwhile, which it opens through TensorFlow
(`tensorflow_datasets.core.shuffle._Bucket`); these do the same through Python's own files.
"""

import contextlib
import pathlib
from collections.abc import Iterator

from tensorflow_datasets.core import shuffle

from jaxcxr.data import progress

_KEY_BYTES, _LENGTH_BYTES = 16, 8


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Lets TFDS shuffle through `_Shuffler` in this context."""
    original, shuffle.Shuffler = shuffle.Shuffler, _Shuffler
    try:
        yield
    finally:
        shuffle.Shuffler = original


class _Shuffler(shuffle.Shuffler):
    """TFDS's shuffler, the same order, with other buckets."""

    def __init__(self, dirpath, hash_salt, **options):
        super().__init__(dirpath, hash_salt, **options)
        self._split = hash_salt  # TFDS salts with the name of the split
        self._buckets = [
            _Bucket(pathlib.Path(dirpath, f"bucket-{hash_salt}-{i:04d}"))
            for i in range(shuffle.BUCKETS_NUMBER)
        ]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        label = f"writing the shards of {self._split}"
        with progress.Progress(label, self.num_examples, brief=True) as bar:
            for record in super().__iter__():
                yield record
                bar.advance(1)


class _Bucket:
    """Records whose keys lie close together, in one file that is open only while it is used."""

    def __init__(self, path: pathlib.Path):
        self._path, self._length = path, 0

    def __len__(self) -> int:
        return self._length

    def add(self, key: int, data: bytes) -> None:
        """Appends a record; a thousand open files would be more than many systems allow."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        length = len(data).to_bytes(_LENGTH_BYTES, "big")
        with self._path.open("ab") as file:
            file.writelines((key.to_bytes(_KEY_BYTES, "big"), length, data))
        self._length += 1

    def read_values(self) -> Iterator[tuple[int, bytes]]:
        """The records in the order in which they were added."""
        if not self._length:
            return
        with self._path.open("rb") as file:
            while key := file.read(_KEY_BYTES):
                data = file.read(int.from_bytes(file.read(_LENGTH_BYTES), "big"))
                yield int.from_bytes(key, "big"), data

    def del_file(self) -> None:
        """Makes room as soon as the records are read."""
        self._path.unlink(missing_ok=True)
