"""`gpufleet simulate --preempt` proposes the pods that the operator would evict."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from gpufleet_testing.cli.files import ObjectFiles, gpu_workload, idle_node
from gpufleet_testing.cli.runner import run_cli

HELD = {"GPU-node-1-0": "low", "GPU-node-1-1": "other"}


def saved(
    files: ObjectFiles, *more: dict[str, Any], min_runtime: int = 0, other: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """A node whose two GPUs are held by the pods of two GPUWorkloads of priority 0.

    `other` has fields of the reservation of the second pod.
    """
    node = idle_node("node-1")
    low, second = (_assignment(uuid, name) for uuid, name in HELD.items())
    node["spec"] = {"assignments": [low, {**second, **other}]}
    workloads, pods = [], []
    for name in HELD.values():
        workload = gpu_workload(name, placement={"minRuntimeSeconds": min_runtime if name == "low" else 0})
        workload["metadata"] |= {"namespace": "ml", "uid": f"uid-{name}", "resourceVersion": "1"}
        workload["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        workloads.append(workload)
        pods.append(_pod(name))
    return files.write(node, *workloads, *pods, _priority_class("high", 1000), *more)


def urgent(files: ObjectFiles, priority_class: str = "high") -> str:
    workload = gpu_workload("urgent")
    workload["spec"]["template"]["spec"]["priorityClassName"] = priority_class
    return files.write(workload)


def _pod(name: str) -> dict[str, Any]:
    owner = {"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUWorkload", "name": name, "uid": f"uid-{name}"}
    meta: dict[str, Any] = {"name": f"{name}-0", "namespace": "ml", "uid": f"uid-{name}-0", "resourceVersion": "1"}
    meta |= {"creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{**owner, "controller": True}]}
    spec = {"nodeName": "node-1", "priority": 0, "containers": [{"name": "main"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Running"}}


def _assignment(uuid: str, name: str) -> dict[str, Any]:
    return {
        "podUID": f"uid-{name}-0",
        "namespace": "ml",
        "pod": f"{name}-0",
        "container": "main",
        "workload": name,
        "workloadUID": f"uid-{name}",
        "replica": 0,
        "replicas": 1,
        "resource": "gpufleet.dev/gpu",
        "devices": [uuid],
        "decidedAt": "2026-01-01T00:00:00.000000Z",
    }


def _priority_class(name: str, value: int, **fields: object) -> dict[str, Any]:
    body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
    return {**body, "value": value, **fields}


def proposed(*arguments: str) -> list[str]:
    done = run_cli("simulate", *arguments, "-o", "json")
    assert done.code == 1
    (workload,) = done.json["workloads"]
    return [pod["pod"] for pod in workload.get("preemption", {"pods": []})["pods"]]


def test_cheapest_pod_of_lower_priority_is_proposed(files: ObjectFiles) -> None:
    manifest, fleet = urgent(files), saved(files)

    done = run_cli("simulate", "-f", manifest, "--from", fleet, "--preempt")

    assert "Fits after the eviction of 1 pod of lower priority:" in done.out
    assert proposed("-f", manifest, "--from", fleet, "--preempt") == ["ml/low-0"]
    assert proposed("-f", manifest, "--from", fleet) == [], "not without the flag"


def test_pod_in_its_minimum_runtime_is_not_proposed(files: ObjectFiles) -> None:
    fleet = saved(files, min_runtime=2_000_000_000)

    assert proposed("-f", urgent(files), "--from", fleet, "--preempt") == ["ml/other-0"]


def test_class_that_never_preempts_proposes_no_pod(files: ObjectFiles) -> None:
    fleet = saved(files, _priority_class("polite", 1000, preemptionPolicy="Never"))

    assert proposed("-f", urgent(files, "polite"), "--from", fleet, "--preempt") == []


def test_unknown_class_is_noted(files: ObjectFiles) -> None:
    done = run_cli("simulate", "-f", urgent(files, "missing"), "--from", saved(files), "--preempt")

    assert "default/urgent: PriorityClass missing not found; simulated with priority 0" in done.err


def test_devices_that_a_pod_is_moved_to_do_not_become_free(files: ObjectFiles) -> None:
    origin = {"podUID": "uid-other-0", "node": "node-2", "device": "GPU-node-2-0", "message": "moved from node-2"}
    target = {"podUID": "move-uid-other-0", "keepForSuccessor": True, "movedFrom": origin}
    fleet = saved(files, other=target)

    assert proposed("-f", urgent(files), "--from", fleet, "--preempt") == ["ml/low-0"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Pod", "Pod low-0: cannot be decoded as v1.Pod: 'creationTimestamp'"),
        ("GPUWorkload", "GPUWorkload low: cannot be decoded as gpufleet.dev/v1alpha1.GPUWorkload: 'creationTimestamp'"),
        ("PriorityClass", 'PriorityClass odd: value: Invalid value: "x": must be an integer'),
    ],
)
def test_object_that_cannot_be_used_is_bad_input(files: ObjectFiles, kind: str, message: str) -> None:
    pod, workload = _pod("low"), gpu_workload("low")
    del pod["metadata"]["creationTimestamp"]
    workload["metadata"] |= {"namespace": "ml", "uid": "uid-low"}
    broken = {"Pod": pod, "GPUWorkload": workload, "PriorityClass": {**_priority_class("odd", 0), "value": "x"}}

    done = run_cli("simulate", "-f", urgent(files), "--from", saved(files, broken[kind]), "--preempt")

    assert (done.code, message in done.err) == (2, True)
