"""Builds data sets with TFDS, writing its shards straight from staged records; shows them."""

import abc
import hashlib
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import ClassVar

import rich.console
import rich.table
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module

from jaxcxr.data import progress, staging
from jaxcxr.errors import UserError

RUN_ONLY = {"variant": False}  # metadata of an option that does not change what is prepared
_SHARD_BYTES = 2**28
_SPLITS = ("train", "validation", "test")
UNKNOWN = "unknown labels"  # a row that the overview leaves out where all labels are known


class DataSet(  # type: ignore[call-arg]  # TFDS has no types
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Base of all builders; a split is a list of staged records or a generator of (key, record).

    TFDS would shuffle a large split through files that it opens by TensorFlow, and keep it on disk
    twice meanwhile. Here the staged records are read in the shuffled order straight into shards.
    """

    index_file: ClassVar[str] = ""  # beside the records, written last; "": none is needed
    given: ClassVar[tuple[str, ...]] = ("--raw", "DIR")  # what `jaxcxr prepare` needs of raw data

    def write_index(self, directory: pathlib.Path) -> None:
        """Writes `index_file` of a prepared data set."""

    def confirm(self, directory: pathlib.Path) -> None:
        """Refuses a prepared data set that this builder's options would have made otherwise."""

    def understand(self) -> bool:
        """Reads the raw data's tables and prints what they say, before anything is written.

        Returns:
          Whether this data set has anything to print.
        """
        return False

    @staticmethod
    @abc.abstractmethod
    def overview(directory: pathlib.Path, split: str) -> dict[str, int]:
        """Counts what one split of a prepared data set holds: name of the row -> count."""

    def given_raw(self, wanted: str) -> str:
        """Returns the option `raw`; `wanted` completes "Give --raw".

        Raises:
          UserError: it is empty.
        """
        if not self.builder_config.raw:
            raise UserError(f"{self.name}: where is the data? Give --raw {wanted}.")
        return self.builder_config.raw

    def staged(self, splits, encode, **options) -> dict[str, list[staging.Staged]]:
        """Makes the records of all splits by `staging.staged_splits` with this data set's options.
        """
        options = {"workers": self.builder_config.workers, "label": self.name, **options}
        serialize, directory = self.info.features.serialize_example, staging.directory_of(self)
        return staging.staged_splits(splits, encode, serialize, directory=directory, **options)

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        """Writes the shards of all splits; TFDS does the rest."""
        found = []
        for split, records in self._split_generators(dl_manager).items():
            if not isinstance(records, list):
                serialize = self.info.features.serialize_example
                serialized = ((key, serialize(record)) for key, record in records)
                records = staging.spooled(serialized, staging.directory_of(self))
            # A small or partial data set can have a split without records, which TFDS cannot.
            if records:
                found.append(_write_split(self, split, records))
        self.info.set_splits(tfds.core.SplitDict(found))

    def _generate_examples(self, *args) -> Iterable[tuple[str, dict]]:
        raise NotImplementedError  # staged splits leave nothing to generate


def open_builder(cls: type[DataSet], root: str | os.PathLike, **options) -> DataSet:
    """Makes a builder without TFDS's warning about configs that its fixed list lacks."""
    try:
        config = cls.builder_config_class(**options)
    except UserError as error:  # configs that several sources share know no name
        raise UserError(f"{cls.name}: {str(error).removeprefix(f'{cls.name}: ')}") from error
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        return cls(data_dir=root, config=config)
    finally:
        logging.set_verbosity(verbosity)


def _write_split(builder, split: str, records: list[staging.Staged]) -> tfds.core.SplitInfo:
    """Writes the shards of one split in the order of the hashes of the keys."""
    records = sorted(records, key=lambda record: _place(split, record.key))
    for one, other in itertools.pairwise(records):
        if one.key == other.key:
            raise UserError(f"{builder.name}: two records of {split} are called {one.key!r}.")
    template = tfds.core.ShardedFileTemplate(
        dataset_name=builder.name, split=split, data_dir=builder.data_dir,
        filetype_suffix="array_record",
    )
    size = sum(record.size for record in records)
    shards = min(len(records), math.ceil(size / _SHARD_BYTES) or 1)
    ends = [round(len(records) * i / shards) for i in range(shards + 1)]
    with progress.Progress(f"writing the shards of {split}", len(records), brief=True) as bar:
        for i in range(shards):
            path = template.sharded_filepath(shard_index=i, num_shards=shards)
            writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
            for record in records[ends[i] : ends[i + 1]]:
                writer.write(record.read())
                bar.advance(1)
            writer.close()
    lengths = [end - start for start, end in itertools.pairwise(ends)]
    return tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
    )


def _place(split: str, key: str) -> bytes:
    """Hashes a key as TFDS does; changing it would reorder all data prepared so far."""
    return hashlib.md5(f"{split}{key}".replace("\\", "/").encode()).digest()


def show(directory: pathlib.Path, overview: Callable[[pathlib.Path, str], dict[str, int]]) -> None:
    """Prints the table of a prepared data set: one column per split.

    Arguments:
      directory: the prepared data set.
      overview: see `DataSet.overview`.
    """
    info = tfds.builder_from_directory(directory).info
    splits = [name for name in _SPLITS if name in info.splits]
    columns = [overview(directory, name) for name in splits]
    table = rich.table.Table("", *splits)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in columns[0]:
        counts = [column[row] for column in columns]
        if row != UNKNOWN or any(counts):
            table.add_row(row, *(f"{count:,}" for count in counts))
    rich.console.Console().print(table)
