"""`jaxcxr prepare`: converts a data set into ArrayRecord shards, once, through its TFDS builder."""

import argparse
import contextlib
import errno
import fcntl
import importlib.util
import inspect
import io
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging

from jaxcxr import registry
from jaxcxr.data import overview, progress, shuffling, staging
from jaxcxr.data.cores import usable_cores
from jaxcxr.errors import RunError, UserError, did_you_mean
from jaxcxr.xray.images import manifest, radiographs

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BEAM_HELP = (
    "let Apache Beam make the records, with these options of its runner in one string, as in "
    '--beam="--runner=FlinkRunner --flink_master=HOST:PORT"; all workers must see the raw data '
    "and --out under the same paths"
)


def prepare(source: str, data_dir: str | os.PathLike | None = None, *, beam: str = "", **options):
    """Prepares a data set unless it is there; an interrupted preparation goes on.

    Arguments:
      source: a key of `registry.SOURCES`.
      data_dir: root of the prepared data; $TFDS_DATA_DIR or ~/tensorflow_datasets by default.
      beam: options of an Apache Beam runner that makes the records, see `jaxcxr.data.beam`; by
        default processes of this machine make them.
      **options: fields of the builder's config. `workers` is the number of cores by default.

    Returns:
      The TFDS builder, its data at `DATA_DIR/<source>/<variant>/<version>`.

    Raises:
      UserError: an option or the raw data is wrong, or `data_dir` cannot be written.
      RunError: the disk is full.
    """
    if "workers" in _names(source):
        options = {"workers": usable_cores(), **options}
    builder = _builder(source, data_dir, options)
    directory = pathlib.Path(builder.data_dir)
    with _beam(source, beam), _os_errors(directory), _locked(directory.parent):
        if not _is_complete(source, directory):
            _write(source, builder, directory)
    return builder


def find(source: str, options: dict, data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Folder of a prepared data set.

    Arguments:
      source: a key of `registry.SOURCES`.
      options: fields of the builder's config that name the variant.
      data_dir: as in `prepare`.

    Returns:
      `DATA_DIR/<source>/<variant>/<version>`.

    Raises:
      UserError: it is not prepared; the message holds the command to run and the variants there.
    """
    directory = pathlib.Path(_builder(source, data_dir, options).data_dir)
    if _is_complete(source, directory):
        return directory
    there = sorted(path.parts[-3] for path in directory.parent.parent.glob("*/*/dataset_info.json"))
    others = f"\nOther variants prepared there: {', '.join(there)}." if there else ""
    raise UserError(
        f"{source} is not prepared at {directory}. Run:\n"
        f"  {_command(source, options, data_dir)}{others}"
    )


def find_or_generate(config) -> pathlib.Path:
    """Folder of the data set that a training config names; a generated source is made if absent.

    Arguments:
      config: `data.source`, `data.options`, `data.dir`, `data.workers` (0: one per core).

    Raises:
      UserError: a data set with raw files is not prepared; the message holds the command.
    """
    settings = config.data
    options = dict(settings.options)
    if registry.source(settings.source).generated:
        if settings.workers and "workers" in _names(settings.source):
            options["workers"] = settings.workers
        prepare(settings.source, settings.dir or None, **options)
    return find(settings.source, options, settings.dir or None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one sub-command per source, with the options of its builder's config."""
    commands = parser.add_subparsers(
        dest="source", required=True, metavar="SOURCE", parser_class=_SourceParser
    )
    for source in registry.SOURCES:
        origin = "generated" if registry.source(source).generated else "from raw files"
        command = commands.add_parser(source, help=f"{registry.source(source).task}, {origin}")
        command.source = source


def run(args: argparse.Namespace) -> None:
    """Prepares what the arguments say and prints the table of what there is.

    Raises:
      UserError, RunError: as `prepare`.
    """
    given = {name: getattr(args, name) for name in _names(args.source)}
    given = {name: value for name, value in given.items() if value is not None}
    directory = pathlib.Path(_builder(args.source, args.out, given).data_dir)
    before = _is_complete(args.source, directory)
    try:
        prepare(args.source, args.out, beam=args.beam, **given)
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command goes on where it stopped") from None
    print(f"{'Already prepared' if before else 'Prepared'}: {directory}")
    overview.show(directory, registry.source(args.source).task)
    if before:
        print("To prepare it anew, remove that folder first.")


class _SourceParser(argparse.ArgumentParser):
    """Parser of one source's options, which imports the builder only when it is asked for."""

    source = ""

    def parse_known_args(self, args=None, namespace=None):
        self.add_argument("--out", metavar="DIR", help="root of the prepared data (TFDS's default)")
        self.add_argument("--beam", metavar="OPTIONS", default="", help=_BEAM_HELP)
        config_class = registry.builder_class(self.source).builder_config_class
        help_of = _documented(config_class)
        for field in registry.source_fields(self.source):
            default = "one per core" if field.name == "workers" else _shown(field.default)
            text = help_of.get(field.name, "") + (f" (default: {default})" if default else "")
            flag, kind = f"--{field.name.replace('_', '-')}", type(field.default)
            if kind is bool:
                action = {"action": argparse.BooleanOptionalAction}
            else:
                action = {"type": kind if kind in (int, float, str) else _listed}
            self.add_argument(flag, default=None, help=text.replace("%", "%%"), **action)
        return super().parse_known_args(args, namespace)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _shown(default) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _documented(config_class: type) -> dict[str, str]:
    """Texts of the sections "Attributes:" of a class and its bases, by their names."""
    texts = {}
    for cls in reversed(config_class.__mro__):
        section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
        entries = re.findall(r"^  (\w+): (.*(?:\n {4,}.*)*)", section, re.MULTILINE)
        texts |= {name: " ".join(body.split()).rstrip(".") for name, body in entries}
    return texts


def _names(source: str) -> list[str]:
    return [field.name for field in registry.source_fields(source)]


def _builder(source: str, data_dir, options: dict):
    names = _names(source)
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
        root.exists()  # fails for a path that cannot be, as one of too long a name
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "no such home folder"
        raise UserError(
            f"{root} cannot be written ({reason}); choose another folder with --out DIR"
        ) from error
    config = cls.builder_config_class(**options)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that is not on a fixed list
    try:
        return cls(data_dir=root, config=config)
    finally:
        logging.set_verbosity(verbosity)


def _command(source: str, options: dict, data_dir) -> str:
    words = ["jaxcxr", "prepare", source]
    if not registry.source(source).generated:
        words += ["--raw", "DIR"]
    for name, default in registry.source_options(source).items():
        value = options.get(name, default)
        if value == default:
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", _shown(value)]
    return shlex.join([*words, "--out", str(data_dir)] if data_dir else words)


def _is_complete(source: str, directory: pathlib.Path) -> bool:
    needed = ["dataset_info.json"]
    if registry.source(source).task == "cxr":
        needed.append(manifest.NAME)
    return all((directory / name).exists() for name in needed)


def _write(source: str, builder, directory: pathlib.Path) -> None:
    """Lets TFDS write the shards, then adds the manifest, then clears what was staged."""
    for left_over in directory.parent.glob(f"incomplete.*_{directory.name}"):
        shutil.rmtree(left_over)
    staged = staging.directory_of(builder)
    tfds.disable_progress_bar()
    announced = io.StringIO()  # a download that is none
    with contextlib.redirect_stdout(announced), shuffling.without_tensorflow():
        builder.download_and_prepare(
            download_dir=staged / "downloads",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            file_format="array_record",
        )
    if registry.source(source).task == "cxr":
        splits = {name: radiographs.open_records(directory, name) for name in builder.info.splits}
        manifest.write(directory, splits, builder.classes)
    shutil.rmtree(staged, ignore_errors=True)


def _beam(source: str, options: str) -> contextlib.AbstractContextManager:
    """Context in which Beam makes the chunks; none does without options."""
    if not options:
        return contextlib.nullcontext()
    if "workers" not in _names(source):
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
        f"the disk of {directory} is full; a preparation needs three times the space of its result "
        "while it works. Make room and run the same command again: what is finished is kept."
    )
