"""`gpufleet doctor` names cause and cure of each problem; each case changes one thing of a good cluster."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import pytest

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
VERSION = version("gpufleet")
SYSTEM = "gpufleet-system"


def at(seconds: float = -5) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def labels(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "gpufleet",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/version": VERSION,
        "helm.sh/chart": f"gpufleet-{VERSION}",
    }


def owner(component: str, *args: str, **spec: Any) -> dict[str, Any]:
    selector = {"app.kubernetes.io/component": component}
    template = {"spec": {"containers": [{"name": component, "args": list(args)}], **spec}}
    return {
        "metadata": {"name": f"gpufleet-{component}", "namespace": SYSTEM, "labels": labels(component)},
        "spec": {"replicas": 1, "selector": {"matchLabels": selector}, "template": template},
        "status": {"readyReplicas": 1},
    }


def own_pod(component: str, node: str) -> dict[str, Any]:
    pod = workload_pod(f"gpufleet-{component}-x", "none", SYSTEM, spec={"nodeName": node})
    pod["metadata"]["labels"] = labels(component)
    return pod


def policy(suffix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    name = f"gpufleet-{suffix}"
    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    return {"metadata": {"name": name, "labels": labels("policy")}}, binding


def good() -> Cluster:
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
        "CRDS": [copy.deepcopy(dict(WORKLOAD_CRD.definition())), copy.deepcopy(dict(TELEMETRY_CRD.definition()))],
        "POLICIES": [first for first, _ in pairs],
        "BINDINGS": [second for _, second in pairs],
        "OPERATORS": [owner("operator", "--tolerate-taints=nvidia.com/gpu")],
        "AGENTS": [owner("agent", "--resource=gpufleet.dev/gpu")],
        "NAMESPACES": [{"metadata": {"name": SYSTEM, "labels": {}}}],
        "RUNTIME_CLASSES": [],
        "SLICES": [],
        "NODES": [node],
        "PODS": [own_pod("agent", "node-1"), own_pod("operator", "node-1"), workload_pod("train-0", "train")],
        "WORKLOADS": [live_workload("train")],
        "TELEMETRY": [telemetry],
    }


def examine(cluster: RecordedCluster, objects: Cluster) -> list[dict[str, str]]:
    for name, items in objects.items():
        cluster.put(getattr(kinds, name), *items)
    done = run_cli("doctor", "-o", "json")
    assert done.code == (1 if done.json["problems"] else 0)
    return list(done.json["problems"])


def test_nothing_is_wrong_with_a_good_cluster(cluster: RecordedCluster) -> None:
    assert examine(cluster, good()) == []
    assert run_cli("doctor").out == "no problem found; 16 checks passed\n"


def no_crd(c: Cluster) -> None:
    c["CRDS"].pop()


def old_crd(c: Cluster) -> None:
    versions = c["CRDS"][0]["spec"]["versions"]
    del versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["runPolicy"]


def new_crd(c: Cluster) -> None:
    versions = c["CRDS"][0]["spec"]["versions"]
    versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["later"] = {"type": "string"}


def no_policy(c: Cluster) -> None:
    c["POLICIES"].pop()


def unbound_policy(c: Cluster) -> None:
    c["BINDINGS"].pop()


def auditing_policy(c: Cluster) -> None:
    c["BINDINGS"][0]["spec"]["validationActions"] = ["Audit"]


def no_operator(c: Cluster) -> None:
    c["OPERATORS"].clear()


def stopped_operator(c: Cluster) -> None:
    c["OPERATORS"][0]["status"], c["OPERATORS"][0]["spec"]["replicas"] = {}, 0


def crashing_operator(c: Cluster) -> None:
    c["OPERATORS"][0]["status"] = {}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    c["PODS"][1]["status"] = {"phase": "Running", "containerStatuses": [{"name": "operator", "state": waiting}]}


def unseen_workload(c: Cluster) -> None:
    c["WORKLOADS"][0]["metadata"]["generation"] = 2


def no_agent(c: Cluster) -> None:
    c["PODS"].pop(0)


def unready_agent(c: Cluster) -> None:
    c["PODS"][0]["status"]["conditions"] = []


def stale_telemetry(c: Cluster) -> None:
    for where in (c["TELEMETRY"][0]["metadata"]["managedFields"][0], c["TELEMETRY"][0]["status"]):
        where["time" if "time" in where else "observedAt"] = at(-600)


def unregistered_plugin(c: Cluster) -> None:
    c["NODES"][0]["status"].update(capacity={}, allocatable={})


def fewer_allocatable(c: Cluster) -> None:
    c["NODES"][0]["status"]["allocatable"] = {"gpufleet.dev/gpu": "1"}


def second_plugin(c: Cluster) -> None:
    c["NODES"][0]["status"]["capacity"]["nvidia.com/gpu"] = "2"


def no_driver(c: Cluster) -> None:
    c["TELEMETRY"][0]["status"].update(summary={"state": "NoDriver"}, devices=[])


def missing_runtime_class(c: Cluster) -> None:
    c["AGENTS"][0]["spec"]["template"]["spec"]["runtimeClassName"] = "nvidia"


def missing_runtime_handler(c: Cluster) -> None:
    missing_runtime_class(c)
    c["RUNTIME_CLASSES"].append({"metadata": {"name": "nvidia"}, "handler": "nvidia"})


def unknown_taint(c: Cluster) -> None:
    c["AGENTS"][0]["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
    c["NODES"][0]["spec"]["taints"] = [{"key": "team", "value": "ml", "effect": "NoSchedule"}]


def taint_against_the_agent(c: Cluster) -> None:
    c["NODES"][0]["spec"]["taints"] = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]


def baseline_namespace(c: Cluster) -> None:
    c["NAMESPACES"][0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"


def gated_pod(c: Cluster) -> None:
    c["PODS"].append(workload_pod("lost-0", "lost", gated=True))


def lost_reservation(c: Cluster) -> None:
    c["TELEMETRY"][0]["spec"]["assignments"].append(reservation("team", "gone-0", "gone", "GPU-node-1-1"))


def older_agent(c: Cluster) -> None:
    c["TELEMETRY"][0]["status"]["agentVersion"] = "0.0.9"


def late_clock(c: Cluster) -> None:
    c["TELEMETRY"][0]["status"]["observedAt"] = at(-65)


def dra_without_slice(c: Cluster) -> None:
    c["PODS"][0]["spec"]["containers"][0]["args"] = ["--transport=DRA"]
    unregistered_plugin(c)


@pytest.mark.parametrize(
    ("change", "check", "about", "words"),
    [
        (no_crd, "CRDMissing", "gputelemetries.gpufleet.dev", "not installed"),
        (old_crd, "CRDOlder", "gpuworkloads.gpufleet.dev", "it lacks spec.runPolicy"),
        (new_crd, "CRDNewer", "gpuworkloads.gpufleet.dev", "it has spec.later"),
        (no_policy, "PolicyMissing", "pods", "is missing"),
        (unbound_policy, "PolicyNotBound", "gpufleet-pods", "rejects nothing"),
        (auditing_policy, "PolicyNotBound", "gpufleet-assignments", "with Deny"),
        (no_operator, "OperatorMissing", "operator", "nothing places workloads"),
        (stopped_operator, "OperatorNotReady", "gpufleet-operator", "scaled to 0"),
        (crashing_operator, "OperatorNotReady", "gpufleet-operator", "operator: CrashLoopBackOff"),
        (unseen_workload, "OperatorBehind", "gpuworkloads", "team/train"),
        (no_agent, "AgentMissing", "node-1", "label nvidia.com/gpu.present=true"),
        (unready_agent, "AgentNotReady", "node-1", "main: running"),
        (stale_telemetry, "TelemetryStale", "node-1", "s old; no pod is placed"),
        (unregistered_plugin, "PluginNotRegistered", "node-1", "the agent reports 2 GPUs"),
        (fewer_allocatable, "AllocatableDiffers", "node-1", "1 gpufleet.dev/gpu are allocatable"),
        (dra_without_slice, "PluginNotRegistered", "node-1", "no device is in a ResourceSlice of gpu.gpufleet.dev"),
        (second_plugin, "SecondPlugin", "node-1", "offers nvidia.com/gpu"),
        (no_driver, "NoDriver", "node-1", "the default runtime"),
        (missing_runtime_class, "RuntimeHandlerMissing", "gpufleet-agent", 'RuntimeClass "nvidia"'),
        (missing_runtime_handler, "RuntimeHandlerMissing", "node-1", 'no handler "nvidia"'),
        (unknown_taint, "TaintNotTolerated", "node-1", "no workload tolerates team=ml:NoSchedule"),
        (taint_against_the_agent, "TaintNotTolerated", "node-1", "the agent does not tolerate nvidia.com/gpu"),
        (baseline_namespace, "PodSecurityRejectsAgent", SYSTEM, "enforce=baseline"),
        (gated_pod, "GatedPodWithoutWorkload", "team/lost-0", 'GPUWorkload "lost" does not exist'),
        (lost_reservation, "ReservationWithoutPod", "node-1", "team/gone-0"),
        (older_agent, "VersionsDiffer", "versions", "0.0.9: the agent on node-1"),
        (late_clock, "ClockSkew", "node-1", "behind the apiserver's"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_thing_that_is_wrong_is_the_one_problem(
    cluster: RecordedCluster, change: Callable[[Cluster], None], check: str, about: str, words: str
) -> None:
    objects = good()
    change(objects)
    (problem,) = examine(cluster, objects)
    assert problem["check"] == check
    assert problem["object"].endswith(about)
    assert words in problem["cause"]
    assert problem["cure"]


def test_node_with_transport_dra_needs_no_extended_resource(cluster: RecordedCluster) -> None:
    objects = good()
    dra_without_slice(objects)
    spec = {"driver": "gpu.gpufleet.dev", "nodeName": "node-1", "devices": [{"name": "a"}, {"name": "b"}]}
    objects["SLICES"].append({"metadata": {"name": "s"}, "spec": spec})
    assert examine(cluster, objects) == []


def test_clock_of_this_machine_is_compared_with_the_apiserver(cluster: RecordedCluster) -> None:
    cluster.record("auth-whoami", json.dumps({"metadata": {"creationTimestamp": at(3600)}}))
    (problem,) = examine(cluster, good())
    assert (problem["check"], problem["object"]) == ("ClockSkew", "this machine")
    assert "s behind the apiserver's" in problem["cause"]
    cluster.record("auth-whoami", json.dumps({"metadata": {"creationTimestamp": at(0)}}))
    assert examine(cluster, good()) == []


def test_list_that_may_not_be_read_is_not_checked_with_a_note(cluster: RecordedCluster) -> None:
    cluster.fail(kinds.POLICIES.path(), 'Error from server (Forbidden): User "dev" cannot list resource')
    assert examine(cluster, good()) == []
    done = run_cli("doctor")
    assert done.out == "no problem found; 15 checks passed, 1 not made\n"
    assert [note.startswith("not checked: admission policies:") for note in done.notes] == [True]


def test_problems_are_printed_with_cause_and_cure(cluster: RecordedCluster) -> None:
    objects = good()
    gated_pod(objects)
    examine(cluster, objects)
    assert run_cli("doctor").out.splitlines() == [
        "GatedPodWithoutWorkload pod/team/lost-0",
        '├── cause: the gate gpufleet.dev/assignment holds the pod, and GPUWorkload "lost" does not exist',
        "└── cure: kubectl delete pod --namespace=team lost-0, or create the GPUWorkload",
        "1 problem found; 15 checks passed",
    ]
