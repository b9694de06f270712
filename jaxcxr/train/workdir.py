"""The folder of a run, on this machine or in Google Cloud Storage (`gs://`).

`config.json` and the checkpoints are written where they belong. Files that grow (`metrics.jsonl`,
TensorBoard's events) and those that libraries write (figures, tables) need a folder of this
machine: a remote workdir gets copies of them whenever a checkpoint is saved.
"""

import importlib
import os
import pathlib
import shutil
import tempfile

import jax
from etils import epath

from jaxcxr.errors import UserError


def parse(text: str | os.PathLike) -> epath.Path:
    """Returns the path of a workdir.

    Arguments:
      text: a folder of this machine (`~` is the user's), or `gs://BUCKET/FOLDER`.
    """
    text = os.fspath(text)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return epath.Path(text).expanduser()
    if scheme != "gs":
        raise UserError(
            f"{text}: a workdir is a folder of this machine or gs://BUCKET/FOLDER, where Orbax can "
            "write checkpoints; for other storage, mount the bucket with a file system that can "
            "rename folders (s3fs-fuse, rclone mount, JuiceFS) and give the folder."
        )
    try:
        importlib.import_module("gcsfs")
    except ImportError as error:
        raise UserError(f"{text} needs the package gcsfs: pip install gcsfs.") from error
    os.environ["EPATH_USE_TF"] = "false"  # it would load TensorFlow wherever that is installed
    return epath.Path(text)


def is_remote(workdir: os.PathLike) -> bool:
    """Tells whether a path is an address in an object store."""
    return "://" in os.fspath(workdir)


def check_writable(workdir: epath.Path) -> None:
    """Makes the folder where absent, and tries to write in it.

    Raises:
      UserError: it cannot be written, or Orbax could not read a checkpoint there again.
    """
    path = os.fspath(workdir if is_remote(workdir) else workdir.absolute())
    # Orbax looks for files of a checkpoint by a glob pattern that holds this path as it is.
    special = sorted(set(path) & set("*?[\\"))
    if special:
        raise UserError(
            f"{path} has {' '.join(special)} in its name, with which checkpoints cannot be read "
            "again; give a --workdir without."
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if is_remote(workdir):
            probe = workdir / f".probe-{os.getpid()}"
            probe.write_text("")
            probe.unlink()
        else:
            with tempfile.TemporaryFile(dir=workdir):
                pass
    except Exception as error:
        if not isinstance(error, OSError) and not is_remote(workdir):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot write {workdir}: {reason}; give another --workdir.") from error


def mark_done(workdir: epath.Path, done: bool) -> None:
    """Makes the file `done` of a finished run, or removes it; process 0 alone does."""
    if jax.process_index():
        return
    if done:
        (workdir / "done").write_text("")
    else:
        (workdir / "done").unlink(missing_ok=True)


class Local:
    """A local folder for a workdir: itself, or one whose files are copied to it.

    Process 0 alone copies.

    Attributes:
      workdir: see `parse`.
      path: where to write.
    """

    def __init__(self, workdir: os.PathLike):
        self.workdir = epath.Path(workdir)
        self._remote, self._active = is_remote(workdir), jax.process_index() == 0
        self._copied: dict[pathlib.Path, tuple[int, int]] = {}
        self.path = pathlib.Path(tempfile.mkdtemp() if self._remote else workdir)
        if self._remote and self._active:
            # What is read here, or goes on.
            for name in ("config.json", "metrics.jsonl", "run.jsonl"):
                if (self.workdir / name).exists():
                    (self.path / name).write_bytes((self.workdir / name).read_bytes())

    def push(self) -> None:
        """Copies what changed since the last time."""
        if not (self._remote and self._active):
            return
        for path in sorted(self.path.rglob("*")):
            stat = path.stat()
            version = (stat.st_mtime_ns, stat.st_size)
            if path.is_file() and self._copied.get(path) != version:
                target = self.workdir / path.relative_to(self.path).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                self._copied[path] = version

    def close(self) -> None:
        """Copies for the last time; a folder that stood for a remote one goes."""
        try:
            self.push()
        finally:
            if self._remote:
                shutil.rmtree(self.path, ignore_errors=True)
