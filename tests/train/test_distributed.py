"""The environments of the schedulers give each process its place."""

import pytest

from jaxcxr.errors import UserError
from jaxcxr.train import distributed

# As sbatch and srun set them for task 5 of 8 on two nodes of four GPUs (man srun, OUTPUT
# ENVIRONMENT VARIABLES); JAX derives the port from the number of the job.
SLURM = {
    "SLURM_JOB_ID": "4242", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
JAX = {"JAX_COORDINATOR_ADDRESS": "h:1234", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}


@pytest.fixture
def find(monkeypatch):
    """`distributed.find` in an environment of these variables; JAX looks at os.environ itself."""

    def found(variables, **more):
        variables = {**variables, **more}
        for name in {**SLURM, **MPI, **JAX, "CUDA_VISIBLE_DEVICES": ""}:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return distributed.find(variables)

    return found


def test_a_workstation_is_alone(find):
    assert find({}) is None
    assert find({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None
    assert find(SLURM, SLURM_STEP_NUM_TASKS="1") is None


def test_jax_variables_are_taken_as_they_are(find):
    place = find(JAX)
    assert (place.address, place.processes, place.process, place.devices) == ("h:1234", 3, 2, None)
    assert find(JAX, JAX_LOCAL_DEVICE_IDS="2,3").devices == (2, 3)
    assert find({**SLURM, **JAX}).process == 2, "what is set by hand comes first"


def test_slurm_with_one_process_per_gpu_or_per_node(find):
    place = find(SLURM)
    port = int(place.address.removeprefix("gpu07:"))
    assert 1024 < port < 65536
    assert (place.found_by, place.processes, place.process, place.devices) == ("slurm", 8, 5, (1,))
    assert find(SLURM, CUDA_VISIBLE_DEVICES="3").devices is None, "bound by the scheduler"
    assert find(SLURM, CUDA_VISIBLE_DEVICES="0,1,2,3").devices == (1,)
    alone = find(SLURM, SLURM_STEP_NUM_TASKS="2", SLURM_NTASKS="2", SLURM_PROCID="1",
                 SLURM_LOCALID="0")
    assert (alone.processes, alone.devices) == (2, None)


def test_open_mpi(find):
    place = find(MPI)
    assert place.address.startswith("10.96.0.1:")
    assert (place.found_by, place.processes, place.process, place.devices) == ("ompi", 4, 3, (1,))


def test_open_mpi_5_needs_the_address_and_nothing_else(find):
    five = {name: value for name, value in MPI.items() if "orte" not in name}
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS not set"):
        find(five)
    place = find(five, JAX_COORDINATOR_ADDRESS="a:5000")
    assert (place.address, place.processes, place.process) == ("a:5000", 4, 3)


@pytest.mark.parametrize(("change", "message"), [
    ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID not set"),
    ({"JAX_PROCESS_ID": "3"}, "from 0 to 2"),
    ({"JAX_PROCESS_ID": "two"}, "whole number"),
    ({"JAX_COORDINATOR_ADDRESS": "h"}, "HOST:PORT"),
])
def test_incomplete_variables_are_a_mistake(find, change, message):
    with pytest.raises(UserError, match=message):
        find(JAX, **change)


def test_on_demands_others_and_auto_and_off_do_not(find):
    find({})
    with pytest.raises(UserError, match="nothing names the other processes"):
        distributed.start("on", 1, 100)
    assert distributed.start("auto", 1, 100) is None
    find(JAX)
    assert distributed.start("off", 1, 100) is None
