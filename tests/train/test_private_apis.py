"""What other packages do not promise is still there, and does what we use it for."""

import logging
import subprocess
import sys

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from jaxcxr.train import private_apis


def test_a_machine_without_a_tpu_is_none():
    assert private_apis.on_cloud_tpu() is False


def test_jax_finds_a_slurm_cluster(monkeypatch):
    for name, value in {
        "SLURM_JOB_ID": "1234", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2",
    }.items():
        monkeypatch.setenv(name, value)
    address, count, index = private_apis.detected_cluster(None, None, None, 10)
    assert address.startswith("node3:")
    assert (count, index) == (4, 3)
    assert private_apis.detected_cluster("host:1", 2, 0, 10) == ("host:1", 2, 0)


def test_what_results_do_not_need_is_removed_inside_loops():
    def function(x):
        def body(carry, _):
            used, unused = carry
            return (used * 2, jnp.sin(unused)), None

        return jax.lax.scan(body, (x, x), None, length=3)[0][0] + 0 * x

    closed = jax.jit(function).trace(1.0).jaxpr
    assert " sin " in str(closed)
    assert " sin " not in str(private_apis.used_equations(closed))


def test_grain_keeps_the_iterator_of_a_process_where_we_look(tmp_path):
    data = iter(grain.MapDataset.range(10).to_iter_dataset())
    next(data)
    with ocp.CheckpointManager(tmp_path, item_names=("data",)) as manager:
        manager.save(1, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(data)))
        manager.wait_until_finished()
    folder = epath.Path(tmp_path) / "1" / "data"
    assert len(private_apis.grain_states(folder)) == 1
    assert private_apis.grain_states(folder, 0) == private_apis.grain_states(folder)
    assert private_apis.grain_states(folder, 1) == []


def test_tensorboard_is_had_without_torch(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise SystemExit('torch is imported')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from jaxcxr.train import private_apis\n"
        "assert private_apis.summary_writer().__name__ == 'SummaryWriter'\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["absl", "asyncio"])
def test_errors_of_orbax_alone_are_not_logged(name, caplog, tmp_path):
    private_apis.quiet_orbax()
    logger = logging.getLogger(name)
    propagates, logger.propagate = logger.propagate, True
    try:
        try:
            ocp.StandardCheckpointer().restore(tmp_path / "absent")
        except Exception:
            logger.exception("restoring failed")
        try:
            np.zeros(2).reshape(3)
        except ValueError:
            logger.exception("reshaping failed")
    finally:
        logger.propagate = propagates
    found = [record.message for record in caplog.records]
    assert "reshaping failed" in found
    assert "restoring failed" not in found
