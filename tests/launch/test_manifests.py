"""The Kubernetes manifest, the image and SkyPilot's task, against their published schemas."""

import copy
import os
import re
import subprocess

import pytest
import yaml

from jaxcxr.errors import UNFINISHED
from tests.launch.conftest import LAUNCH, ROOT
from tests.launch.test_scripts import shellcheck

# field -> whether it is required and what it holds, of the custom resource
# jobsets.jobset.x-k8s.io/v1alpha2 (JobSet 0.10, its types and CRD), of batch/v1 Job, and of v1 Pod
# as far as the manifest uses them.
REQUIRED, OPTIONAL = True, False
TEXT, NUMBER, FLAG, MAP = str, int, bool, dict
ENV = {
    "name": (REQUIRED, TEXT), "value": (OPTIONAL, TEXT),
    "valueFrom": (OPTIONAL, {"fieldRef": (REQUIRED, {"fieldPath": (REQUIRED, TEXT)})}),
}
CONTAINER = {
    "name": (REQUIRED, TEXT), "image": (REQUIRED, TEXT), "args": (OPTIONAL, [TEXT]),
    "env": (OPTIONAL, [ENV]), "ports": (OPTIONAL, [{"containerPort": (REQUIRED, NUMBER)}]),
    "resources": (OPTIONAL, {"limits": (OPTIONAL, MAP)}),
    "terminationMessagePolicy": (OPTIONAL, {"File", "FallbackToLogsOnError"}),
    "volumeMounts": (OPTIONAL, [{
        "name": (REQUIRED, TEXT), "mountPath": (REQUIRED, TEXT), "readOnly": (OPTIONAL, FLAG),
    }]),
}
POD = {
    "restartPolicy": (OPTIONAL, {"Never", "OnFailure"}),
    "terminationGracePeriodSeconds": (OPTIONAL, NUMBER), "nodeSelector": (OPTIONAL, MAP),
    "tolerations": (OPTIONAL, [{"key": (OPTIONAL, TEXT), "operator": (OPTIONAL, TEXT),
                                "effect": (OPTIONAL, TEXT)}]),
    "containers": (REQUIRED, [CONTAINER]),
    "volumes": (OPTIONAL, [{
        "name": (REQUIRED, TEXT), "emptyDir": (OPTIONAL, {"medium": (OPTIONAL, TEXT)}),
        "csi": (OPTIONAL, {"driver": (REQUIRED, TEXT), "readOnly": (OPTIONAL, FLAG),
                           "volumeAttributes": (OPTIONAL, MAP)}),
    }]),
}
JOB = {
    "parallelism": (OPTIONAL, NUMBER), "completions": (OPTIONAL, NUMBER),
    "completionMode": (OPTIONAL, {"Indexed", "NonIndexed"}), "backoffLimit": (OPTIONAL, NUMBER),
    "podFailurePolicy": (OPTIONAL, {"rules": (REQUIRED, [{
        "action": (REQUIRED, {"FailJob", "FailIndex", "Ignore", "Count"}),
        "onExitCodes": (OPTIONAL, {
            "containerName": (OPTIONAL, TEXT), "operator": (REQUIRED, {"In", "NotIn"}),
            "values": (REQUIRED, [NUMBER]),
        }),
    }])}),
    "template": (REQUIRED, {"metadata": (OPTIONAL, {"annotations": (OPTIONAL, MAP)}),
                            "spec": (REQUIRED, POD)}),
}
JOBSET = {
    "apiVersion": (REQUIRED, {"jobset.x-k8s.io/v1alpha2"}), "kind": (REQUIRED, {"JobSet"}),
    "metadata": (REQUIRED, {"name": (REQUIRED, TEXT), "labels": (OPTIONAL, MAP),
                            "annotations": (OPTIONAL, MAP)}),
    "spec": (REQUIRED, {
        "network": (OPTIONAL, {"enableDNSHostnames": (OPTIONAL, FLAG),
                               "subdomain": (OPTIONAL, TEXT),
                               "publishNotReadyAddresses": (OPTIONAL, FLAG)}),
        "coordinator": (OPTIONAL, {"replicatedJob": (REQUIRED, TEXT),
                                   "jobIndex": (OPTIONAL, NUMBER), "podIndex": (OPTIONAL, NUMBER)}),
        "failurePolicy": (OPTIONAL, {
            "maxRestarts": (OPTIONAL, NUMBER),
            "restartStrategy": (OPTIONAL, {"Recreate", "BlockingRecreate", "InPlaceRestart"}),
            "rules": (OPTIONAL, [{
                "name": (REQUIRED, TEXT),
                "action": (REQUIRED, {"FailJobSet", "RestartJobSet", "RestartJob",
                                      "RestartJobSetAndIgnoreMaxRestarts",
                                      "RestartJobAndIgnoreMaxRestarts"}),
                "onJobFailureReasons": (OPTIONAL, [TEXT]),
                "targetReplicatedJobs": (OPTIONAL, [TEXT]),
            }]),
        }),
        "replicatedJobs": (REQUIRED, [{
            "name": (REQUIRED, TEXT), "replicas": (OPTIONAL, NUMBER),
            "groupName": (OPTIONAL, TEXT), "template": (REQUIRED, {"spec": (REQUIRED, JOB)}),
        }]),
    }),
}


def breaches(value, schema, where=""):
    """What in a document its schema does not allow."""
    if isinstance(schema, set):
        return [] if value in schema else [f"{where} is {value!r}"]
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{where} is no list"]
        return [found for i, item in enumerate(value)
                for found in breaches(item, schema[0], f"{where}[{i}]")]
    if isinstance(schema, type):
        fits = isinstance(value, schema) and (schema is bool or not isinstance(value, bool))
        return [] if fits else [f"{where} is {value!r}, no {schema.__name__}"]
    if not isinstance(value, dict):
        return [f"{where} is no map"]
    found = [f"{where}.{name} is missing" for name, (required, _) in schema.items()
             if required and name not in value]
    for name, item in value.items():
        if name in schema:
            found += breaches(item, schema[name][1], f"{where}.{name}")
        else:
            found.append(f"{where}.{name} is no field")
    return found


@pytest.fixture(scope="module")
def jobsets():
    documents = yaml.safe_load_all((LAUNCH / "gke_jobset.yaml").read_text())
    return {document["metadata"]["labels"]["accelerator"]: document for document in documents}


def pod_of(jobset):
    job, = jobset["spec"]["replicatedJobs"]
    return job["template"]["spec"], job["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
def test_jobsets_fit_the_published_schema(jobsets, kind):
    jobset = jobsets[kind]
    assert breaches(jobset, JOBSET) == []
    for rule in jobset["spec"]["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", jobset["metadata"]["name"])
    _, pod = pod_of(jobset)
    container, = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_schema_finds_mistakes(jobsets):
    wrong = copy.deepcopy(jobsets["gpu"])
    wrong["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurepolicy"] = {}
    del wrong["spec"]["failurePolicy"]["rules"][0]["action"]
    wrong["spec"]["coordinator"]["podIndex"] = "0"
    assert len(breaches(wrong, JOBSET)) == 3


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
def test_a_mistake_fails_the_jobset_and_every_other_end_restarts_it(jobsets, kind):
    jobset = jobsets[kind]
    job, pod = pod_of(jobset)
    # 75, saved but not finished, ends all pods together; they are replaced, which counts nowhere.
    assert job["podFailurePolicy"]["rules"] == [
        {"action": action, "onExitCodes": {
            "containerName": pod["containers"][0]["name"], "operator": "In", "values": [code]}}
        for action, code in (("FailJob", 2), ("Ignore", UNFINISHED))
    ]
    rule, = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    # A pod that fails otherwise fails its job at once, and JobSet's default is to restart all jobs:
    # the processes of a run cannot be replaced one by one.
    assert job["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never", "what a pod failure policy demands"
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    assert pod["terminationGracePeriodSeconds"] >= 60, "time to save"


def test_gpu_pods_find_each_other(jobsets):
    jobset = jobsets["gpu"]
    job, pod = pod_of(jobset)
    env = {item["name"]: item for item in pod["containers"][0]["env"]}
    assert job["completionMode"] == "Indexed"
    assert int(env["JAX_NUM_PROCESSES"]["value"]) == job["completions"] == job["parallelism"]
    index = env["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    address = env["JAX_COORDINATOR_ADDRESS"]["value"]
    assert list(env).index("COORDINATOR") < list(env).index("JAX_COORDINATOR_ADDRESS")
    port = int(re.fullmatch(r"\$\(COORDINATOR\):(\d+)", address)[1])
    assert {"containerPort": port} in pod["containers"][0]["ports"]
    coordinator = jobset["spec"]["coordinator"]
    assert coordinator["replicatedJob"] == jobset["spec"]["replicatedJobs"][0]["name"]
    assert jobset["spec"]["network"]["enableDNSHostnames"]


def test_tpu_hosts_are_those_of_the_topology(jobsets):
    job, pod = pod_of(jobsets["tpu"])
    x, y = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert job["completions"] == job["parallelism"] == x * y // chips


def test_the_image_holds_what_the_manifest_starts(jobsets):
    lines = re.sub(r"\\\n", " ", (LAUNCH / "Dockerfile").read_text()).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert steps[0][0] == "FROM"
    for name, rest in steps:
        assert name in {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "ENTRYPOINT"}
        if name == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1])
    entry = dict(steps)["ENTRYPOINT"]
    assert yaml.safe_load(entry) == ["python", "-m", "jaxcxr.main"], "no shell that eats SIGTERM"
    for jobset in jobsets.values():
        assert pod_of(jobset)[1]["containers"][0]["args"][0] == "--config=${CONFIG}"
    placeholders = set(re.findall(r"\$\{(\w+)\}", (LAUNCH / "gke_jobset.yaml").read_text()))
    assert placeholders == {"IMAGE", "CONFIG", "WORKDIR", "DATA_BUCKET"}


@pytest.fixture(scope="module")
def task():
    return yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())


def test_the_skypilot_task_has_the_fields_of_its_schema(task):
    # https://docs.skypilot.co/en/stable/reference/yaml-spec.html
    assert set(task) == {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts",
                         "setup", "run"}
    assert set(task["resources"]) == {"accelerators", "use_spot", "job_recovery"}
    assert set(task["resources"]["job_recovery"]) <= {"strategy", "max_restarts_on_errors",
                                                      "recover_on_exit_codes"}
    assert all(isinstance(value, str) for value in task["envs"].values())
    mount, = task["file_mounts"].values()
    assert mount["mode"] in ("MOUNT", "COPY", "MOUNT_CACHED")
    for part in ("setup", "run"):
        done = shellcheck("--shell=bash", "-", text=task[part])
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("codes", "expected", "tries"), [
    ("0", 0, 1), ("2", 2, 1), ("1 0", 0, 2), ("1 1 1", 1, 3),
    ("75 75 75 75 0", 0, 5), ("75 1 75 1 1", 1, 5), ("75 2", 2, 2),
])
def test_skypilot_tries_failures_again_but_no_mistakes(task, shell, codes, expected, tries):
    shell.program("trainer", f'echo "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID"\n'
                             f"codes=({codes}); exit ${{codes[$(grep -c trainer "
                             f"{shell.folder}/calls.txt) - 1]}}")
    env = {**os.environ, **task["envs"], "PYTHON": str(shell.folder / "trainer"),
           "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6", "SKYPILOT_NUM_NODES": "2",
           "SKYPILOT_NODE_RANK": "1", "SKYPILOT_TASK_ID": "sky-1", "ARGUMENTS": "--config.seed=3"}
    done = subprocess.run(["bash", "-c", task["run"]], env=env, text=True, capture_output=True,
                          check=False)
    assert done.returncode == expected, done.stderr
    assert len(shell.calls) == tries
    assert done.stdout.splitlines()[0] == "10.0.0.5:8476 2 1"
    assert shell.calls[0].endswith("--workdir=gs://my-bucket/sky-1 "
                                   "--config.data.dir=/mnt/bucket/data --config.seed=3")
