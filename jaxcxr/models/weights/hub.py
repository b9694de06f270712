"""Fetches weights by name from the Hugging Face hub.

Names are `hf://ORG/REPO[@REVISION][/FILE]` and `timm/NAME`, which is `hf://timm/NAME`.
Files lie in the hub's cache (`$HF_HOME`), from which they are taken without a network. What was
fetched is checked by size and hash each time.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

from jaxcxr.errors import RunError, UserError
from jaxcxr.models.weights.weight_files import ENDINGS, IN_FOLDERS, SIDECARS

_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?(?:/(.+))?")
_TIMM = re.compile(r"timm/([\w.-]+)(?:@(\w+))?")


def local(name: str | pathlib.Path) -> pathlib.Path:
    """Returns the file of weights that a name stands for, fetched if it is not in the cache.

    Arguments:
      name: of the hub, or a path, which is returned as it is.

    Raises:
      UserError: no such name, or neither the cache nor a network has it.
      RunError: a file is not what the hub says it is.
    """
    parsed = _parse(str(name))
    if parsed is None:
        return pathlib.Path(name)
    repository, revision, file = parsed
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError as error:
        raise UserError(
            f"{name} is fetched by huggingface_hub, which is not installed: run "
            "`pip install 'jaxcxr[hub]'`, or give the path of a file."
        ) from error
    try:
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        info = api.model_info(repository, revision=revision, files_metadata=True)
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "")
        raise UserError(
            f"{name}: the hub answers {status} for {repository}"
            f"{f' at {revision}' if revision else ''}; check the name, and for a gated "
            "repository accept its terms and run `hf auth login`."
        ) from error
    except Exception as error:  # of whichever HTTP library the hub's client uses
        return _cached(repository, revision, file, error)
    sizes = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    chosen = _choose(sizes, file, repository)
    try:
        for wanted in (*(name for name in SIDECARS if name in sizes), chosen):
            path = hub.hf_hub_download(
                repository, wanted, revision=revision, endpoint=api.endpoint
            )
            _check(pathlib.Path(path), sizes[wanted])
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{name}: {wanted} was not fetched: {error}") from error
    return pathlib.Path(path)


def repository(path: pathlib.Path) -> str:
    """The name of the repository of a file in the hub's cache; "" of other files."""
    parts = path.parts
    if "snapshots" not in parts:
        return ""
    folder = parts[len(parts) - 2 - parts[::-1].index("snapshots")]
    return folder.rpartition("--")[2] if folder.startswith("models--") else ""


def _parse(name: str) -> tuple[str, str | None, str | None] | None:
    """Repository, revision and file of a name; None of a path."""
    if match := _NAME.fullmatch(name):
        return match[1], match[2], match[3]
    if name.startswith("hf:"):
        raise UserError(f"{name} is no name of the hub: write hf://ORG/REPO or hf://ORG/REPO/FILE.")
    if (match := _TIMM.fullmatch(name)) and not pathlib.Path(name).exists():
        return f"timm/{match[1]}", match[2], None
    return None


def _choose(files: Collection[str], file: str | None, repository: str) -> str:
    """The weight file of a repository."""
    if file:
        if file not in files:
            near = [name for name in files if name.endswith(ENDINGS)]
            raise UserError(f"{repository} has no {file}; its weights: {', '.join(near[:10])}.")
        return file
    found = [name for name in IN_FOLDERS if name in files][:1] or [
        name for name in sorted(files) if name.endswith(ENDINGS)
    ]
    if len(found) != 1:
        several = f": {', '.join(found[:10])}; name one, as hf://{repository}/FILE" if found else ""
        raise UserError(f"{repository} has {len(found) or 'no'} files of weights{several}.")
    return found[0]


def _cached(
    repository: str, revision: str | None, file: str | None, error: Exception
) -> pathlib.Path:
    """The file from the cache, where the hub cannot be reached."""
    import huggingface_hub as hub

    command = f"hf download {repository}{f' --revision {revision}' if revision else ''}"
    try:
        folder = pathlib.Path(
            hub.snapshot_download(repository, revision=revision, local_files_only=True)
        )
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        if file and file not in files:
            raise FileNotFoundError(file)
        path = folder / _choose(files, file, repository)
    except (OSError, ValueError, UserError) as missing:
        raise UserError(
            f"{repository} is not in the cache, and the hub cannot be reached "
            f"({type(error).__name__}). Where there is a network, run `{command}`; without one "
            "here, copy that cache to $HF_HOME (~/.cache/huggingface)."
        ) from missing
    _check(path)
    return path


def _check(path: pathlib.Path, said: Any = None) -> None:
    """Compares a file with what the hub says of it: its blob's name in the cache is its hash."""
    blob = path.resolve()
    size, hashes = blob.stat().st_size, {blob.name}
    lfs: Mapping[str, Any] | None = getattr(said, "lfs", None)
    if lfs:
        hashes = {lfs["sha256"]}
    if said is not None and said.size is not None and size != said.size:
        raise RunError(
            f"{path} has {size:,} bytes, not {said.size:,}; delete {blob} and run again."
        )
    digests = (
        (64, hashlib.sha256()), (40, hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)),
    )
    for length, digest in digests:
        known = {value for value in hashes if re.fullmatch(rf"[0-9a-f]{{{length}}}", value)}
        if known:
            with blob.open("rb") as file:
                while chunk := file.read(2**22):
                    digest.update(chunk)
            if digest.hexdigest() not in known:
                raise RunError(
                    f"{path} is damaged: its hash is not that of the hub; delete {blob} and run "
                    "again."
                )
