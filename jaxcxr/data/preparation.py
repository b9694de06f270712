"""Converts a data set into ArrayRecord shards, once, through its TFDS builder."""

import contextlib
import errno
import fcntl
import importlib.util
import io
import os
import pathlib
import shlex
import shutil
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from jaxcxr import registry
from jaxcxr.data import dataset, progress, staging
from jaxcxr.data.staging import usable_cores
from jaxcxr.errors import RunError, UserError, did_you_mean

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCKLESS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


def prepare(source: str, data_dir: str | os.PathLike | None = None, *, beam: str = "", **options):
    """Prepares a data set unless it is prepared; resumes an interrupted preparation.

    Arguments:
      source: a key of `registry.SOURCES`.
      data_dir: root of the prepared data; $TFDS_DATA_DIR or ~/tensorflow_datasets by default.
      beam: options of an Apache Beam runner that makes the records, see `jaxcxr.data.beam`;
        without, processes of this machine make them.
      **options: fields of the builder's config. `workers` is the number of cores by default.

    Returns:
      The TFDS builder, its data at `DATA_DIR/<source>/<variant>/<version>`.

    Raises:
      UserError: an option or the raw data is wrong, or `data_dir` cannot be written.
      RunError: the disk is full.
    """
    if "workers" in option_names(source):
        options = {"workers": usable_cores(), **options}
    builder = _builder(source, data_dir, options)
    directory = pathlib.Path(builder.data_dir)
    with _beam(source, beam), _os_errors(directory):
        if not _is_complete(source, directory):  # what is complete may lie on a read-only mount
            with _locked(directory.parent):
                if not _is_complete(source, directory):  # nor did who held the lock complete it
                    _write(source, builder, directory)
                    return builder
        builder.confirm(directory)
    return builder


def preview(source: str, data_dir: str | os.PathLike | None = None, **options) -> None:
    """Prints what `prepare` would make, and writes nothing; arguments as there.

    Raises:
      UserError: as `prepare`, or the source prints nothing beforehand.
    """
    if not _builder(source, data_dir, options).understand():
        raise UserError(f"{source} prints nothing beforehand; leave --dry-run out.")


def locate(
    source: str, options: dict, data_dir: str | os.PathLike | None = None
) -> tuple[pathlib.Path, bool]:
    """Returns the folder of a data set and whether it is prepared; arguments as in `find`."""
    directory = pathlib.Path(_builder(source, data_dir, options).data_dir)
    return directory, _is_complete(source, directory)


def find(source: str, options: dict, data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Returns the folder of a prepared data set.

    Arguments:
      options: fields of the builder's config that name the variant.
      source, data_dir: as in `prepare`.

    Returns:
      `DATA_DIR/<source>/<variant>/<version>`.

    Raises:
      UserError: it is not prepared; the message holds the command to run and the variants there.
    """
    directory, complete = locate(source, options, data_dir)
    if complete:
        return directory
    there = sorted(path.parts[-3] for path in directory.parent.parent.glob("*/*/dataset_info.json"))
    others = (
        f"\nOther variants prepared there: {', '.join(there)}; --config.data.options.NAME=VALUE "
        "chooses one."
    ) if there else ""
    raise UserError(
        f"{source} is not prepared at {directory}. Run:\n"
        f"  {_command(source, options, data_dir)}{others}"
    )


def find_or_generate(config) -> pathlib.Path:
    """Finds the data set that a training config names; generates it if it has no raw files.

    Arguments:
      config: `data.source`, `data.options`, `data.dir`, `data.workers` (0: one per core).

    Raises:
      UserError: a data set with raw files is not prepared; the message holds the command.
    """
    settings = config.data
    options = dict(settings.options)
    if registry.source(settings.source).generated:
        if settings.workers and "workers" in option_names(settings.source):
            options["workers"] = settings.workers
        prepare(settings.source, settings.dir or None, **options)
    return find(settings.source, options, settings.dir or None)


def described(config):
    """Returns the builder of the data set that a training config names, prepared or not."""
    builder = _builder(config.data.source, config.data.dir or None, dict(config.data.options))
    builder.info  # noqa: B018  # options can change the classes, which are known with the features
    return builder


def shown(value: Any) -> str:
    """Writes the value of an option as on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def option_names(source: str) -> list[str]:
    """Returns the names of the options of a source."""
    return [field.name for field in registry.source_fields(source)]


def _builder(source: str, data_dir, options: dict):
    names = option_names(source)
    for name in options:
        if name not in names:
            raise UserError(
                f"{source} has no option {name!r}.{did_you_mean(name, names)} "
                f"Options: {', '.join(names)}."
            )
    cls = registry.builder_class(source)
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        root = pathlib.Path(root).expanduser().absolute()
        root.exists()  # fails for impossible paths, such as too long a name
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "no such home folder"
        raise UserError(
            f"{root} cannot be written ({reason}); choose another folder with --out DIR"
        ) from error
    return dataset.open_builder(cls, root, **options)


def _command(source: str, options: dict, data_dir) -> str:
    words = ["jaxcxr", "prepare", source]
    if not registry.source(source).generated:
        words += registry.builder_class(source).given
    for name, default in registry.source_options(source).items():
        value = options.get(name, default)
        if value == default:
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", shown(value)]
    return shlex.join([*words, "--out", str(data_dir)] if data_dir else words)


def _is_complete(source: str, directory: pathlib.Path) -> bool:
    needed = ("dataset_info.json", registry.builder_class(source).index_file)
    return all((directory / name).exists() for name in needed)


def _write(source: str, builder, directory: pathlib.Path) -> None:
    """Writes shards, metadata and index, then clears what was staged."""
    for left_over in directory.parent.glob(f"incomplete.*_{directory.name}"):
        shutil.rmtree(left_over)
    staged = staging.directory_of(builder)
    tfds.disable_progress_bar()
    builder.understand()
    announced = io.StringIO()  # TFDS announces a download although there is none
    with contextlib.redirect_stdout(announced):
        builder.download_and_prepare(
            download_dir=staged / "downloads",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            file_format="array_record",
        )
    builder.write_index(directory)
    shutil.rmtree(staged, ignore_errors=True)


def _beam(source: str, options: str) -> contextlib.AbstractContextManager:
    """Context in which Beam makes the chunks; without options, this machine does."""
    if not options:
        return contextlib.nullcontext()
    if "workers" not in option_names(source):
        raise UserError(f"{source} makes its records in one process; leave --beam out.")
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError("--beam needs Apache Beam: pip install 'jaxcxr[beam]'")
    from jaxcxr.data import beam  # lazily: few have Apache Beam, and it is slow to import

    return staging.made_by(beam.maker(options))


@contextlib.contextmanager
def _locked(variant: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time prepare a variant; the kernel frees the lock of a killed one."""
    try:
        variant.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # a file system that makes no folders, such as /proc
        raise PermissionError(errno.EPERM, "no folder can be made there", variant) from error
    with (variant / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"{variant}: another process prepares this; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _LOCKLESS:
                raise
            progress.say(f"{variant}: this file system has no locks ({error.strerror}); do not "
                         "prepare the same data twice at once")
        yield


@contextlib.contextmanager
def _os_errors(directory: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(_full(directory)) from error
        if error.errno in _UNWRITABLE:
            raise UserError(
                f"{error.filename or directory} cannot be written ({error.strerror}); choose "
                "another folder with --out DIR or $TFDS_DATA_DIR"
            ) from error
        raise
    except RuntimeError as error:
        # ArrayRecord is written by C++, whose errors carry no errno.
        if "No space left" in str(error):
            raise RunError(_full(directory)) from error
        raise


def _full(directory: pathlib.Path) -> str:
    return (
        f"the disk of {directory} is full; a preparation needs twice the space of its result "
        "while it works. Make room and run the same command again: what is finished is kept."
    )
