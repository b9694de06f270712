"""Uses of what other packages do not promise to keep, each with the reason; all are tested.

JAX is imported where it is used: processes find each other before it is.
"""

import importlib.util
import logging
import pathlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etils import epath


def on_cloud_tpu() -> bool:
    """Tells whether this host is a cloud TPU VM.

    Asking `jax.devices()` would start the backend, which `jax.distributed.initialize` must precede.
    """
    import jax  # noqa: F401  finds out whether this is a TPU host
    from jax._src import cloud_tpu_init

    return cloud_tpu_init.running_in_cloud_tpu_vm


def detected_cluster(
    address: str | None, count: int | None, index: int | None, seconds: int
) -> tuple[str | None, int | None, int | None]:
    """Completes (address, processes, process) by JAX's own detection of clusters.

    `jax.distributed.initialize` does so too, but tells nobody, and a rendezvous that fails can
    only name what it waited for if the three are known beforehand.
    """
    from jax._src.clusters import ClusterEnv

    return ClusterEnv.auto_detect_unset_distributed_params(
        address, count, index, None, None, seconds
    )[:3]


def used_equations(closed: Any) -> Any:
    """Returns the jaxpr without what its results do not need, inside loops too.

    XLA removes the same before it counts FLOPs, and JAX has no public function for it.

    Arguments:
      closed: a `jax.extend.core.ClosedJaxpr`.
    """
    from jax.interpreters import partial_eval

    return partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.out_avals))[0]


def grain_states(folder: "epath.Path", process: int | None = None) -> list["epath.Path"]:
    """Files in which Grain's checkpoint handler keeps the iterator of a process.

    Grain restores with the same number of processes alone; we do with any other, all iterators of
    a step standing at one place.

    Arguments:
      folder: item of a checkpoint.
      process: None asks for the file of this process among as many as there are now.
    """
    import jax

    if process is None:
        pattern = f"process_{jax.process_index()}-of-{jax.process_count()}.json"
    else:
        pattern = f"process_{process}-of-*.json"
    return list(folder.glob(pattern))


def summary_writer() -> type:
    """tensorboardX's SummaryWriter, without the torch that it imports wherever one is installed.

    A None in `sys.modules` makes an import fail as if the package were absent.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def quiet_orbax() -> None:
    """Drops the errors that Orbax's threads log, with tracebacks: it also raises them."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_from_orbax)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    spec = importlib.util.find_spec("orbax")
    folders = spec.submodule_search_locations if spec else None
    files = [record.pathname]
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return not any(
        file.startswith(str(pathlib.Path(folder))) for file in files for folder in folders or ()
    )
