"""Lets one run at a time train in a workdir: a file that says who does, renewed as it goes on.

It needs no locks, so that it works on network file systems and in buckets. Clocks of hosts are
never compared: who finds a lease of another host watches whether it is renewed.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator

import jax
from etils import epath

from jaxcxr.errors import UserError
from jaxcxr.train import workdir as workdir_lib

RENEWED = 5.0  # seconds between two renewals
STALE = 30.0  # seconds without one after which the holder is taken for dead
_SETTLED = 1.0  # seconds after which who wrote at the same time has written


@contextlib.contextmanager
def held(workdir: epath.Path) -> Iterator[None]:
    """Holds the workdir inside the context; process 0 alone does.

    Raises:
      UserError: another run trains there.
    """
    if jax.process_index():
        yield
        return
    path = workdir / "lease.json"
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(),
            "begun": _begun(os.getpid()), "id": uuid.uuid4().hex, "beat": 0}
    _take(path, mine, _wait_until_free(path))
    stopped = threading.Event()
    thread = threading.Thread(target=_renew, args=(path, mine, stopped), daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        if (_read(path) or mine)["id"] == mine["id"]:
            path.unlink(missing_ok=True)


def _wait_until_free(path: epath.Path) -> dict | None:
    """Returns the lease of a dead holder, or None; raises as soon as it is renewed."""
    first = _read(path)
    if first is None or _is_dead(first):
        return first
    if first["machine"] == _machine():
        raise UserError(_refusal(path, first))
    print(f"jaxcxr: {path.parent} was in use by process {first['pid']} on {first['host']}; "
          f"waiting up to {STALE:.0f} s to see whether it still is", file=sys.stderr, flush=True)
    deadline = time.monotonic() + STALE
    while time.monotonic() < deadline:
        now = _after(_SETTLED, path)
        if now is None:
            return None
        if (now["id"], now["beat"]) != (first["id"], first["beat"]):
            raise UserError(_refusal(path, now))
    return first


def _take(path: epath.Path, mine: dict, dead: dict | None) -> None:
    """Writes the lease; of several that do at once, one goes on."""
    if dead is None and not workdir_lib.is_remote(path):
        try:
            with pathlib.Path(path).open("x") as file:
                file.write(json.dumps(mine) + "\n")
            return
        except FileExistsError:
            dead = None if _after(_SETTLED, path) else mine  # a cut write is nobody's
    if dead is not None or workdir_lib.is_remote(path):
        _write(path, mine)
    holder = _after(_SETTLED, path)
    if holder and holder["id"] != mine["id"]:
        raise UserError(_refusal(path, holder))


def _renew(path: epath.Path, mine: dict, stopped: threading.Event) -> None:
    """Counts on in the file; ends the process if another run has taken over."""
    while not stopped.wait(RENEWED):
        try:
            holder = _read(path)
            if holder and holder["id"] != mine["id"]:
                print(f"jaxcxr: {_refusal(path, holder)} This run stood still for too long and "
                      "stops.", file=sys.stderr, flush=True)
                os._exit(1)
            mine["beat"] += 1
            _write(path, mine)
        except Exception:  # the store is away for a while; the checkpoints will say so
            continue


def _after(seconds: float, path: epath.Path) -> dict | None:
    time.sleep(seconds)
    return _read(path)


def _read(path: epath.Path) -> dict | None:
    """Returns the lease; None where there is none, or a write of it was cut."""
    try:
        found = json.loads(path.read_text())
        return found if {"host", "pid", "machine", "begun", "id", "beat"} <= set(found) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(path: epath.Path, lease: dict) -> None:
    """Replaces the file at once, so that nobody reads half of it; in a bucket every write does."""
    partial = path.with_name(f"lease.{lease['id']}.partial")
    partial.write_text(json.dumps(lease) + "\n")
    partial.replace(path)


def _is_dead(lease: dict) -> bool:
    """Tells whether the holder was a process of this machine that has ended."""
    return lease["machine"] == _machine() and _begun(lease["pid"]) != lease["begun"]


def _refusal(path: epath.Path, lease: dict) -> str:
    return (
        f"{path.parent} is in use: process {lease['pid']} on {lease['host']} trains there; wait "
        "for its end or stop it, or give another --workdir."
    )


def _machine() -> str:
    """Names this boot of this machine and its space of process ids; containers have their own."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _begun(pid: int) -> str:
    """Tells a process from a later one of the same number; "" where there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "" if pathlib.Path("/proc/self/stat").exists() else "alive"
