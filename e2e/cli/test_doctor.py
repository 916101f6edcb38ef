"""`kubectl gpufleet doctor` finds nothing on a good cluster, and each of many faults when they are seeded."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from gpufleet_e2e.support.api import BINDINGS, CRDS, NAMESPACES, NODES, POLICIES, TELEMETRY, pods
from gpufleet_e2e.support.fleet import AGENTS, OPERATOR_PROCESS, Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import GATE, gpuworkload, plain_pod
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_operator.kube.rejected_requests import READ_LIMIT_SECONDS

JsonObject = dict[str, Any]

CRD = f"{CRDS}/gpuworkloads.gpufleet.dev"
NEWER_CRD = f"{CRDS}/gputelemetries.gpufleet.dev"
MISSING_CRD = f"{CRDS}/gpudemands.gpufleet.dev"
LATER = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/later"
FIELD = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/completionTime"
ENFORCE = "pod-security.kubernetes.io/enforce"
ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/gpufleet-operator"
SOON_SECONDS = 20
DENIED_SECONDS = 60 + READ_LIMIT_SECONDS
"""A denied read is repeated for a time, as roles may be replaced at this moment."""
NOT_READY_SECONDS = 60
LABELS = {"kubernetes.io/os": "none", "nvidia.com/gpu.present": "true"}
"""Of nodes without kubelet: no DaemonSet of the cluster selects them."""


def test_good_cluster_has_no_problem(cli: CommandLine) -> None:
    eventually(lambda: _good(cli), within=SOON_SECONDS)


def _good(cli: CommandLine) -> None:
    done = cli.run("doctor")
    assert done.code == 0, done
    assert re.fullmatch(r"no problem found; 18 checks passed; gpufleet-operator-\S+ leads\n", done.out), done


def test_every_seeded_fault_is_found_with_cause_and_cure(
    namespace: TestNamespace, fleet: Fleet, cli: CommandLine
) -> None:
    """Mechanism: the operator is stopped, so that it repairs nothing; Nodes without kubelet have telemetry."""
    with _stopped_operator(fleet), ExitStack() as seeded:
        for seed in (_nodes, _policies, _crd, _newer_crd, _missing_crd, _namespace, _runtime_class):
            seeded.enter_context(seed(fleet))
        gated = plain_pod("lost", schedulingGates=[{"name": GATE}])
        fleet.api.create(pods(namespace.name), gated)
        seeded.callback(fleet.api.delete, f"{pods(namespace.name)}/lost", grace=0)
        done = cli.run("doctor", "-o", "json")
        print(cli.run("doctor").out)
    assert done.code == 1
    found = {(one["check"], one["object"].rpartition("/")[2]) for one in done.json["problems"]}
    assert found == {
        ("AgentMissing", "seed-1"),
        ("AgentMissing", "seed-2"),
        ("AllocatableDiffers", "seed-1"),
        ("CRDMissing", "gpudemands.gpufleet.dev"),
        ("CRDNewer", "gputelemetries.gpufleet.dev"),
        ("CRDOlder", "gpuworkloads.gpufleet.dev"),
        ("ClockSkew", "seed-1"),
        ("GatedPodWithoutWorkload", "lost"),
        ("NoDriver", "seed-2"),
        ("NodeMissing", "seed-5"),
        ("OperatorNotReady", "gpufleet-operator"),
        ("PodSecurityRejectsAgent", NAMESPACE),
        ("PolicyMissing", "own-node"),
        ("PolicyNotBound", "gpufleet-pods"),
        ("ReservationWithoutPod", "seed-1"),
        ("RuntimeHandlerMissing", "gpufleet-agent"),
        ("SecondPlugin", "seed-1"),
        ("TaintNotTolerated", "seed-1"),
        ("TelemetryStale", "seed-3"),
        ("PluginNotRegistered", "seed-4"),
        ("AgentMissing", "seed-3"),
        ("AgentMissing", "seed-4"),
        ("VersionsDiffer", "versions"),
    }
    assert all(one["cause"] and one["cure"] for one in done.json["problems"])
    eventually(lambda: _good(cli), within=60)


def test_frozen_agent_is_not_ready(fleet: Fleet, cli: CommandLine) -> None:
    node = fleet.nodes[0]
    fleet.freeze_agent(node)
    try:
        problem = eventually(lambda: _problem(cli, "AgentNotReady"), within=NOT_READY_SECONDS, every=2)
    finally:
        fleet.thaw_agent(node)
    print(problem)
    assert problem["object"] == f"node/{node}"
    assert f"pod {fleet.agent_pod(node)['metadata']['name']}: Running" in problem["cause"]
    eventually(lambda: _good(cli), within=60, every=2)


def test_frozen_operator_is_behind(namespace: TestNamespace, fleet: Fleet, cli: CommandLine) -> None:
    """Until its probe fails, the operator counts as ready."""
    node = fleet.node(fleet.operator_pod()["spec"]["nodeName"])
    (process,) = node.run(["pgrep", "-x", OPERATOR_PROCESS]).stdout.split()
    node.run(["kill", "-STOP", process])
    try:
        namespace.apply(gpuworkload("late"))
        problem = _problem(cli, "OperatorBehind")
    finally:
        node.run(["kill", "-CONT", process])
    assert f"{namespace.name}/late" in problem["cause"]
    namespace.wait_ready("late")
    eventually(lambda: _good(cli), within=60, every=2)


def test_operator_that_may_not_read_demands_is_named(namespace: TestNamespace, fleet: Fleet, cli: CommandLine) -> None:
    """Placement goes on. Mechanism: an event of the operator's pod, which is counted up as long as this lasts."""
    role = fleet.api.get(ROLE)
    index, rule = next((i, one) for i, one in enumerate(role["rules"]) if "gpudemands" in one["resources"])
    path = f"/rules/{index}/resources"
    rest = [one for one in rule["resources"] if one != "gpudemands"]
    fleet.api.patch(ROLE, [{"op": "replace", "path": path, "value": rest}], kind="json")
    try:
        fleet.stop_operator()  # a watch is authorized once
        fleet.start_operator()
        problem = eventually(lambda: _problem(cli, "ReadsDenied"), within=DENIED_SECONDS, every=2)
        namespace.apply(gpuworkload("train"))
        namespace.verify("train")
    finally:
        fleet.api.patch(ROLE, [{"op": "replace", "path": path, "value": rule["resources"]}], kind="json")
    print(problem)
    assert problem["object"] == f"pod/{NAMESPACE}/{fleet.operator_pod()['metadata']['name']}"
    assert "denies reading gpudemands.gpufleet.dev: " in problem["cause"]
    fleet.stop_operator()
    fleet.start_operator()
    eventually(lambda: _good(cli), within=60, every=2)


def _problem(cli: CommandLine, check: str) -> JsonObject:
    found = cli.run("doctor", "-o", "json").json["problems"]
    matching: list[JsonObject] = [one for one in found if one["check"] == check]
    assert len(matching) == 1, found
    return matching[0]


@contextmanager
def _stopped_operator(fleet: Fleet) -> Iterator[None]:
    fleet.stop_operator()
    try:
        yield
    finally:
        fleet.start_operator()


@contextmanager
def _nodes(fleet: Fleet) -> Iterator[None]:
    gpus = {"gpufleet.dev/gpu": "2"}
    taint = [{"key": "team", "value": "ml", "effect": "NoSchedule"}]
    late = datetime.now(UTC) - timedelta(minutes=5)
    stale = {"type": "Fresh", "status": "False", "reason": "Stale", "message": "seeded", "lastTransitionTime": _text()}
    reservation = {
        "podUID": "none", "namespace": "none", "pod": "gone", "container": "main", "workload": "gone",
        "workloadUID": "none", "replica": 0, "replicas": 1, "resource": "gpufleet.dev/gpu",
        "devices": ["GPU-seed-1-0"], "decidedAt": _text(late),
    }  # fmt: skip
    seeds: list[tuple[str, JsonObject, list[JsonObject], JsonObject, JsonObject]] = [
        ("seed-1", {**gpus, "nvidia.com/gpu": "2"}, taint, {"assignments": [reservation]}, {"observedAt": _text(late)}),
        ("seed-2", {}, [], {}, {"summary": {**_summary(0), "state": "NoDriver"}, "devices": []}),
        ("seed-3", gpus, [], {}, {"conditions": [stale]}),
        ("seed-4", {}, [], {}, {"agentVersion": "0.0.1"}),
    ]
    try:
        _seed_telemetry(fleet, "seed-5", {}, {})
        for name, capacity, taints, spec, status in seeds:
            _seed_node(fleet, name, capacity, taints)
            _seed_telemetry(fleet, name, spec, status)
        yield
    finally:
        fleet.api.delete(f"{TELEMETRY}/seed-5")
        for name, *_ in seeds:
            fleet.api.delete(f"{TELEMETRY}/{name}")
            fleet.api.delete(f"{NODES}/{name}")


def _seed_node(fleet: Fleet, name: str, capacity: JsonObject, taints: list[JsonObject]) -> None:
    metadata = {"name": name, "labels": LABELS}
    fleet.api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}})
    allocatable = {**capacity, **({"gpufleet.dev/gpu": "1"} if name == "seed-1" else {})}
    status = {"capacity": capacity, "allocatable": allocatable}
    fleet.api.patch(f"{NODES}/{name}/status", {"status": status}, "strategic")


def _seed_telemetry(fleet: Fleet, name: str, spec: JsonObject, status: JsonObject) -> None:
    own = {"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUTelemetry", "metadata": {"name": name}, "spec": spec}
    fleet.api.create(TELEMETRY, own)
    version = fleet.telemetry(fleet.nodes[0])["status"]["agentVersion"]
    devices = [
        {"uuid": f"GPU-{name}-{index}", "index": index, "model": "NVIDIA H100", "health": {"state": "Healthy"}}
        for index in range(2)
    ]
    full = {"observedAt": _text(), "agentVersion": version, "devices": devices, "summary": _summary(2), **status}
    fleet.api.patch(f"{TELEMETRY}/{name}/status?fieldManager=gpufleet-agent", {"status": full})


def _summary(devices: int) -> JsonObject:
    return {"devices": devices, "healthy": devices, "allocated": 0, "state": "Ready"}


def _text(moment: datetime | None = None) -> str:
    return f"{moment or datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def _policies(fleet: Fleet) -> Iterator[None]:
    binding = fleet.api.get(f"{BINDINGS}/gpufleet-pods")
    policy = fleet.api.get(f"{POLICIES}/gpufleet-own-node")
    fleet.api.delete(f"{BINDINGS}/gpufleet-pods")
    fleet.api.delete(f"{POLICIES}/gpufleet-own-node")
    try:
        yield
    finally:
        # As the chart does, so that its next upgrade does not conflict with the defaults of the API in these objects.
        fleet.api.patch(f"{BINDINGS}/gpufleet-pods?fieldManager=helm", _new(binding), "apply")
        fleet.api.patch(f"{POLICIES}/gpufleet-own-node?fieldManager=helm", _new(policy), "apply")


def _new(body: JsonObject) -> JsonObject:
    kept = {key: body["metadata"][key] for key in ("name", "labels", "annotations") if key in body["metadata"]}
    return {key: body[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": kept}


@contextmanager
def _crd(fleet: Fleet) -> Iterator[None]:
    """A field that no object of these tests has: nothing is lost while it is missing."""
    field: Any = fleet.api.get(CRD)
    for step in FIELD.split("/")[1:]:
        field = field[int(step)] if step.isdigit() else field[step]
    fleet.api.patch(CRD, [{"op": "remove", "path": FIELD}], "json")
    try:
        yield
    finally:
        fleet.api.patch(CRD, [{"op": "add", "path": FIELD, "value": field}], "json")


@contextmanager
def _newer_crd(fleet: Fleet) -> Iterator[None]:
    fleet.api.patch(NEWER_CRD, [{"op": "add", "path": LATER, "value": {"type": "string"}}], "json")
    try:
        yield
    finally:
        fleet.api.patch(NEWER_CRD, [{"op": "remove", "path": LATER}], "json")


@contextmanager
def _missing_crd(fleet: Fleet) -> Iterator[None]:
    """The kind of which no other test needs objects: they are deleted with it."""
    body = fleet.api.get(MISSING_CRD)
    fleet.api.delete(MISSING_CRD)
    eventually(lambda: fleet.api.check_gone(MISSING_CRD), within=SOON_SECONDS)
    try:
        yield
    finally:
        fleet.api.patch(f"{MISSING_CRD}?fieldManager=helm", _new(body), "apply")
        name = MISSING_CRD.rpartition("/")[2]
        eventually(lambda: fleet.api.check_established(name), within=SOON_SECONDS)


@contextmanager
def _namespace(fleet: Fleet) -> Iterator[None]:
    path = f"{NAMESPACES}/{NAMESPACE}"
    before = fleet.api.get(path)["metadata"]["labels"].get(ENFORCE)
    fleet.api.patch(path, {"metadata": {"labels": {ENFORCE: "baseline"}}})
    try:
        yield
    finally:
        fleet.api.patch(path, {"metadata": {"labels": {ENFORCE: before}}})


@contextmanager
def _runtime_class(fleet: Fleet) -> Iterator[None]:
    """OnDelete keeps the agents' pods while the template is another one."""
    strategy = fleet.api.get(AGENTS)["spec"]["updateStrategy"]
    fleet.api.patch(AGENTS, {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}})
    fleet.api.patch(AGENTS, {"spec": {"template": {"spec": {"runtimeClassName": "nvidia"}}}})
    try:
        yield
    finally:
        fleet.api.patch(AGENTS, {"spec": {"template": {"spec": {"runtimeClassName": None}}}})
        fleet.api.patch(AGENTS, {"spec": {"updateStrategy": strategy}})
