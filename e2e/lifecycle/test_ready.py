"""Ready means that the containers run: otherwise the message names container, reason and exit code."""

from functools import partial

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

IMAGE = "registry.example/none:1"
PROBE = {"exec": {"command": ["false"]}, "periodSeconds": 1}

NOT_RUNNING = {
    "image": (container(image=IMAGE), f"ImagePullBackOff: {IMAGE}"),
    "exits": (container(command=("sh", "-c", "exit 1")), "CrashLoopBackOff: exit code 1"),
    "command": (container(command=("/no/such",)), "/no/such"),
    "memory": (container(command=("tail", "/dev/zero"), resources={"limits": {"memory": "32Mi"}}), "OOMKilled"),
    "probe": (container(readinessProbe=PROBE), "readiness probe does not succeed"),
}
REASONS = {"image": "ImagePullBackOff", "exits": "CrashLoopBackOff", "probe": "PodsNotReady"}


def test_workload_whose_containers_do_not_run_is_not_ready(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: Ready is the pods' own condition and every source of the devices; Allocated is the devices alone."""
    namespace.apply(
        *(gpuworkload(name, template=pod_spec(main)) for name, (main, _) in NOT_RUNNING.items()), gpuworkload("runs")
    )
    where = f"--namespace={namespace.name}"
    waited = fleet.cluster.kubectl(
        "wait", "gpuworkload/image", where, "--for=condition=Ready", "--timeout=8s", check=False
    )
    assert waited.returncode == 1, f"kubectl wait: {waited.stdout}{waited.stderr}"
    namespace.verify("runs")
    for name, (_, words) in NOT_RUNNING.items():
        eventually(partial(_says, namespace, name, words), within=40)
        assert objects.is_true(namespace.workload(name), "Allocated"), namespace.describe(name)
    for name, reason in REASONS.items():
        if name != "exits":  # it runs for a moment between two crashes
            assert objects.condition(namespace.workload(name), "Ready")["reason"] == reason
    never(lambda: _not_ready(namespace, "image", "command", "probe"), for_seconds=3)
    columns = fleet.cluster.kubectl("get", "gpuworkloads", where).stdout
    print(columns)
    image = next(line for line in columns.splitlines() if line.startswith("image"))
    assert image.split()[1:4] == ["0/1", "Pending", "ImagePullBackOff"]


def _says(namespace: TestNamespace, name: str, words: str) -> None:
    condition = objects.condition(namespace.workload(name), "Ready")
    print(name, condition)
    assert condition["status"] == "False", namespace.describe(name)
    assert "replica 0: container main" in condition["message"], condition
    assert words in condition["message"], condition


def _not_ready(namespace: TestNamespace, *names: str) -> None:
    for name in names:
        assert not objects.is_true(namespace.workload(name), "Ready"), namespace.describe(name)
