"""Several processes as one run: found from the environment, met, and connected by JAX.

    srun python -m jaxcxr.main ...                     Slurm
    mpirun -n 8 python -m jaxcxr.main ...              Open MPI
    the same command on every worker of a TPU slice    Cloud TPU, and TPU on GKE
    JAX_COORDINATOR_ADDRESS=HOST:PORT JAX_NUM_PROCESSES=N JAX_PROCESS_ID=I python -m jaxcxr.main ...
"""

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Iterator, Mapping

from jaxcxr.errors import UNFINISHED, UserError
from jaxcxr.train import private_apis, rendezvous

# JAX is imported inside functions, see main.py.

_peers: rendezvous.PeerConnections | None = None

# JAX waits that long at the end for process 0, which draws the figures of the report alone.
_SHUTDOWN_SECONDS = 1800


@dataclasses.dataclass(frozen=True)
class ClusterMember:
    """Where this process stands among those of its run.

    Attributes:
      found_by: "environment", "slurm", "ompi", "k8s" or "tpu".
      address: "host:port" of process 0.
      processes: how many there are.
      process: number of this one.
      devices: numbers of the host's devices that are this process's; None: all.
    """

    found_by: str
    address: str
    processes: int
    process: int
    devices: tuple[int, ...] | None


def start(mode: str, start_timeout: float, lost_timeout: float) -> ClusterMember | None:
    """Joins the other processes, before any device is touched.

    Arguments:
      mode: "auto" (where the environment names several processes), "on" (they must be there) or
        "off".
      start_timeout: seconds to wait for all processes.
      lost_timeout: seconds after which JAX counts a process that no longer answers as lost.

    Returns:
      This process's place among the others; None: it is alone.
    """
    global _peers
    member = None if mode == "off" else find(os.environ, start_timeout)
    if member is None or (member.processes == 1 and mode == "auto"):
        if mode == "on":
            raise UserError(
                "--distributed=on, but nothing names the other processes; set "
                "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or start under "
                "srun, mpirun or on all workers of a TPU slice."
            )
        return None
    import jax

    if member.processes > 1:
        _peers = rendezvous.meet(member.address, member.process, member.processes, start_timeout)
    jax.distributed.initialize(
        member.address, member.processes, member.process, local_device_ids=member.devices,
        cluster_detection_method="deactivate",  # all of it is known
        initialization_timeout=int(start_timeout),
        heartbeat_timeout_seconds=int(lost_timeout), shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
    return member


def find(environ: Mapping[str, str], seconds: float = 300) -> ClusterMember | None:
    """Reads from the environment what this process is; None: nothing says there are others.

    Arguments:
      environ: environment variables, `os.environ`.
      seconds: how long a name that is not yet known on the network is asked for.
    """
    kind = _kind(environ)
    if kind is None:
        return None
    count, index = _number(environ, "JAX_NUM_PROCESSES"), _number(environ, "JAX_PROCESS_ID")
    address, devices = environ.get("JAX_COORDINATOR_ADDRESS") or None, None
    if None in (address, count, index) and kind != "environment":
        address, count, index = _asked(kind, address, count, index, seconds)
    values = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": count,
              "JAX_PROCESS_ID": index}
    if address is None or count is None or index is None:
        absent = " and ".join(name for name, value in values.items() if value is None)
        raise UserError(
            f"{absent} not set, but other variables say that this process is one of "
            "several; set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        )
    if not address.rpartition(":")[2].isdigit():
        raise UserError(f"JAX_COORDINATOR_ADDRESS is {address!r}; it must be HOST:PORT.")
    if not 0 <= index < count:
        raise UserError(f"JAX_PROCESS_ID is {index}; it must be from 0 to {count - 1}.")
    if environ.get("JAX_LOCAL_DEVICE_IDS"):
        devices = tuple(map(int, environ["JAX_LOCAL_DEVICE_IDS"].split(",")))
    elif kind in ("slurm", "ompi"):
        devices = _own_device(kind, environ)
    return ClusterMember(kind, address, count, index, devices)


def _kind(environ: Mapping[str, str]) -> str | None:
    """Returns the launcher that started this process as one of several."""
    complete = all(
        environ.get(name)
        for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    )
    if complete:
        return "environment"
    if "SLURM_STEP_NODELIST" in environ and "SLURM_PROCID" in environ:
        tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")
        if int(tasks) > 1:
            return "slurm"
    if int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return "ompi"
    if private_apis.on_cloud_tpu():
        return "tpu"
    # Every pod has the first variable, also one that runs alone; only an indexed job is many.
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        return "k8s"
    named = any(environ.get(name) for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES"))
    return "environment" if named else None


def _asked(kind: str, address, count, index, seconds: float):
    """Completes (address, processes, process) by JAX's own cluster detection."""
    if kind == "ompi" and "OMPI_MCA_orte_hnp_uri" not in os.environ:  # Open MPI from version 5
        return (address, int(os.environ["OMPI_COMM_WORLD_SIZE"]),
                int(os.environ["OMPI_COMM_WORLD_RANK"]))
    return private_apis.detected_cluster(address, count, index, int(seconds))


def _own_device(kind: str, environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """Returns the device of this process's local number, where a host has several processes.

    None, all that it sees, where it is alone on its host or the scheduler shows it only its own.
    """
    if kind == "slurm":
        local = environ.get("SLURM_LOCALID", "0")
        nodes = environ.get("SLURM_STEP_NUM_NODES") or environ.get("SLURM_NNODES", "1")
        tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")
        alone = int(tasks) <= int(nodes)
    else:
        local = environ.get("OMPI_COMM_WORLD_LOCAL_RANK", "0")
        alone = int(environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")) == 1
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if alone or (visible is not None and len(visible.split(",")) == 1):
        return None
    return (int(local),)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise UserError(f"{name} is {text!r}; it must be a whole number.")
    return int(text)


@contextlib.contextmanager
def report_end() -> Iterator[None]:
    """Tells the other processes how the run inside the context ended; ends a failed one at once.

    JAX's own end waits for all processes, which after a failure may wait for this one.
    """
    try:
        yield
    except BaseException as error:
        if _peers is None:
            raise
        code = error.code if isinstance(error, SystemExit) else 1
        if code in (0, None, UNFINISHED):  # all save and stop at the same step
            _peers.leave(0)
            raise
        if isinstance(error, RuntimeError):  # often because another process is lost: say which
            _peers.wait_lost(rendezvous.GRACE)
        if not isinstance(error, (SystemExit, KeyboardInterrupt)):
            traceback.print_exc()
        _peers.leave(code if isinstance(code, int) else 1, str(error.__context__ or error))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
    if _peers is not None:
        _peers.leave(0)
