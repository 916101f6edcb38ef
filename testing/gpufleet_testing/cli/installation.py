"""The objects of a good installation, which tests of `doctor` change."""

import copy
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

from gpufleet_api.crd import DEMAND as DEMAND_CRD
from gpufleet_api.crd import TELEMETRY as TELEMETRY_CRD
from gpufleet_api.crd import WORKLOAD as WORKLOAD_CRD
from gpufleet_cli.cluster import kinds
from gpufleet_testing.cli.clusters import (
    RecordedCluster,
    holder,
    live_telemetry,
    live_workload,
    reservation,
    workload_pod,
)
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

Cluster = dict[str, list[dict[str, Any]]]
"""Objects by the name of their kind in `gpufleet_cli.cluster.kinds`."""
VERSION = version("gpufleet")
SYSTEM = "gpufleet-system"


def at(seconds: float = -5) -> str:
    """Returns a time so many seconds from now."""
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def labels(component: str) -> dict[str, str]:
    """Returns the labels that the chart gives to the objects of a component."""
    return {
        "app.kubernetes.io/name": "gpufleet",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/version": VERSION,
        "helm.sh/chart": f"gpufleet-{VERSION}",
    }


def owner(component: str, *args: str, **spec: object) -> dict[str, Any]:
    """Returns a Deployment or DaemonSet of the chart, with arguments of its container and fields of its pods' spec."""
    selector = {"app.kubernetes.io/component": component}
    template = {"spec": {"containers": [{"name": component, "args": list(args)}], **spec}}
    return {
        "metadata": {"name": f"gpufleet-{component}", "namespace": SYSTEM, "labels": labels(component)},
        "spec": {"replicas": 1, "selector": {"matchLabels": selector}, "template": template},
        "status": {"readyReplicas": 1},
    }


def own_pod(component: str, node: str) -> dict[str, Any]:
    """Returns a ready pod of a component."""
    pod = workload_pod(f"gpufleet-{component}-x", "none", SYSTEM, spec={"nodeName": node})
    pod["metadata"]["labels"] = labels(component)
    return pod


def policy(suffix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns an admission policy of the chart and its binding."""
    name = f"gpufleet-{suffix}"
    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    return {"metadata": {"name": name, "labels": labels("policy")}}, binding


def good() -> Cluster:
    """Returns an installation on one node with two GPUs, of which one is held."""
    pairs = [policy(suffix) for suffix in ("assignments", "own-node", "pods")]
    amounts = {"gpufleet.dev/gpu": "2"}
    node = {
        "metadata": {"name": "node-1", "labels": {"nvidia.com/gpu.present": "true"}},
        "spec": {},
        "status": {"capacity": amounts, "allocatable": dict(amounts), "runtimeHandlers": [{"name": ""}]},
    }
    held = gpu("node-1", 0, allocatedTo=[holder("team", "train-0")])
    telemetry = live_telemetry(
        "node-1", held, gpu("node-1", 1), observed=at(), agentVersion=VERSION,
        spec={"assignments": [reservation("team", "train-0", "train", "GPU-node-1-0")]},
    )  # fmt: skip
    return {
        "CRDS": [copy.deepcopy(dict(crd.definition())) for crd in (WORKLOAD_CRD, DEMAND_CRD, TELEMETRY_CRD)],
        "POLICIES": [first for first, _ in pairs],
        "BINDINGS": [second for _, second in pairs],
        "OPERATORS": [owner("operator", "--tolerate-taints=nvidia.com/gpu")],
        "AGENTS": [owner("agent", "--resource=gpufleet.dev/gpu")],
        "NAMESPACES": [{"metadata": {"name": SYSTEM, "labels": {}}}],
        "RUNTIME_CLASSES": [],
        "SLICES": [],
        "LEASES": [],
        "DENIED_READS": [],
        "NODES": [node],
        "PODS": [own_pod("agent", "node-1"), own_pod("operator", "node-1"), workload_pod("train-0", "train")],
        "WORKLOADS": [live_workload("train")],
        "TELEMETRY": [telemetry],
    }


def examine(cluster: RecordedCluster, objects: Cluster) -> list[dict[str, str]]:
    """Records the objects, runs `doctor` and returns its problems."""
    for name, items in objects.items():
        cluster.put(getattr(kinds, name), *items)
    done = run_cli("doctor", "-o", "json")
    assert done.code == (1 if done.json["problems"] else 0)
    return list(done.json["problems"])
