"""An exception that no rule foresees, in the decision on one workload: the others go on, and its condition names it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from gpufleet_operator.decide import decide, gang_creation, plan, replicas, reports, writes
from gpufleet_operator.decide.adoption import replacement
from gpufleet_operator.decide.claims import claim_writes
from gpufleet_operator.decide.lifecycle import run_policy
from gpufleet_operator.decide.retries import rejections
from gpufleet_operator.decide.rolling import rollout, successors
from gpufleet_operator.model.objects import Node, Telemetry
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.pods import network
from gpufleet_operator.report import gated_pods, node_reports
from gpufleet_operator.runtime import reconciler
from gpufleet_operator.status import build
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment

DNS = {"network": {"enableDNSHostnames": True}}
TOO_MANY = {"devices": {"count": 3}}


def poisoned(function: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
    """Returns a function that raises for workload `poison`."""

    def call(*args: object, **kwargs: object) -> Any:
        if name_of(*args) == "poison":
            raise KeyError("surprise")
        return function(*args, **kwargs)

    return call


def last(*args: Any) -> str:
    """Returns the name of the workload whose replicas are the last argument."""
    return str(args[-1].workload.name)


class Step(NamedTuple):
    """A function that a step calls for a workload, and how to get the name of the workload from its arguments."""

    owner: Any
    function: str
    name_of: Callable[..., str]
    spec: Mapping[str, object] = MappingProxyType({})
    """Spec of the workload for which the function is called."""


STEPS = {
    "assessment": Step(replicas._ReplicaAssessor, "assess_all", lambda self, _: self.workload.name),
    "queue of creations": Step(gang_creation, "precedence", last),
    "removal of an incomplete gang": Step(gang_creation, "_without_pods", last),
    "rollout": Step(rollout, "_update", last),
    "methods of removals": Step(decide, "with_methods", last),
    "placement": Step(plan._Planner, "_place_workload", lambda _, assessed, __: assessed.workload.name),
    "change of the transport": Step(decide, "replace_pods", lambda assessed, *_, **__: assessed.workload.name),
    "missing service": Step(network, "service", lambda workload: workload.name, DNS),
    "changed service": Step(network, "differs", lambda _, workload: workload.name, DNS),
    "record of removals": Step(decide, "record_removals", last),
    "deletion": Step(writes, "_deletes", last),
    "claim": Step(claim_writes, "_unreserved", lambda _, assessed, __: assessed.workload.name),
    "creation": Step(writes, "_creates", lambda snapshot, state, assessed, creations: assessed.workload.name),
    "release": Step(writes, "_releases", lambda assessed, ready, claims: assessed.workload.name if ready else ""),
    "finalizer": Step(replacement, "_restored", last),
    "record of evictions": Step(decide, "record_evictions", lambda assessed, *_, **__: assessed.workload.name),
    "expiry": Step(run_policy, "expiry", lambda workload: workload.name),
    "explanation of a pod": Step(gated_pods, "_wait", lambda *args: args[3].name.partition("-")[0], TOO_MANY),
    "explanation of a removal": Step(reports, "unreplaced", last),
    "rejections": Step(rejections, "_countable_again", last),
    "status": Step(build, "placements", lambda context: context.workload.name),
}


def conditions(cluster: FakeCluster, name: str) -> dict[str, Any]:
    return {c["type"]: c for c in cluster.objects["workloads", f"ml/{name}"]["status"]["conditions"]}


def counted(operator: OperatorProcess) -> float:
    value = operator.registry.get_sample_value("gpufleet_operator_unexpected_errors_total", {"kind": "decision"})
    assert value is not None
    return value


def assert_told(cluster: FakeCluster, operator: OperatorProcess) -> None:
    stalled = conditions(cluster, "poison")["Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "InternalError")
    assert stalled["message"] == "spec: Internal error: KeyError: 'surprise'"
    assert counted(operator) >= 1


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_exception_about_one_workload_stops_no_other(monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    cluster = FakeCluster(2, 2)
    monkeypatch.setattr(step.owner, step.function, poisoned(getattr(step.owner, step.function), step.name_of))
    cluster.submit("good", replicas=2)
    cluster.submit("poison", **step.spec)
    operator = OperatorProcess(cluster, checked=True)

    for _ in range(5):
        await moment(cluster, operator)

    invariants.check_always(cluster)
    assert conditions(cluster, "good")["Placed"]["status"] == "True"
    assert conditions(cluster, "good")["Stalled"]["status"] == "False"
    assert len(cluster.released) >= 2
    assert_told(cluster, operator)


@pytest.mark.parametrize("function", ["_fit_alone", "_passed"])
async def test_devices_kept_for_a_failing_workload_stay_kept(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Another one that rolls gets its devices, and a new one is placed."""
    cluster = FakeCluster(2, 2)
    operator = OperatorProcess(cluster, checked=True)
    for name in ("good", "poison"):
        cluster.submit(name)
    for _ in range(3):
        await moment(cluster, operator)
    before = {a["workload"]: (node, a["devices"]) for node, a in cluster.ledger()}
    original = getattr(successors._Passing, function)
    monkeypatch.setattr(successors._Passing, function, poisoned(original, lambda self, *_: self.assessed.workload.name))
    for name in ("good", "poison"):
        cluster.change_template(name, "newer")
    cluster.submit("late")

    for _ in range(10):
        await moment(cluster, operator)

    invariants.check_always(cluster)
    after = {a["workload"]: (node, a["devices"]) for node, a in cluster.ledger()}
    assert (after["good"], after["poison"]) == (before["good"], before["poison"])
    for name in ("good", "late"):
        assert conditions(cluster, name)["Ready"]["status"] == "True"
    assert conditions(cluster, "good")["Stalled"]["status"] == "False"
    assert_told(cluster, operator)


async def test_exception_about_the_report_of_one_node_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(2, 2)
    differs = node_reports._differs

    def failing(snapshot: Snapshot, found: Any, telemetry: Telemetry | None, node: Node | None) -> bool:
        if telemetry is not None and telemetry.name == "node-1":
            raise KeyError("surprise")
        return differs(snapshot, found, telemetry, node)

    monkeypatch.setattr(node_reports, "_differs", failing)
    cluster.submit("good", replicas=4)
    operator = OperatorProcess(cluster, checked=True)

    logged: list[str] = []
    monkeypatch.setattr(reconciler.log, "error", lambda event, **facts: logged.append(f"{event}: {facts['about']}"))

    for _ in range(3):
        await moment(cluster, operator)

    assert conditions(cluster, "good")["Placed"]["status"] == "True"
    reported = [name for name in cluster.kubelets if "conditions" in cluster.objects["telemetry", name]["status"]]
    assert reported == ["node-2"]
    assert counted(operator) == 1
    assert logged == ["unexpected error in a decision: node-1"]


async def test_workload_recovers_from_an_exception_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    step = STEPS["placement"]
    with monkeypatch.context() as patched:
        patched.setattr(step.owner, step.function, poisoned(getattr(step.owner, step.function), step.name_of))
        cluster.submit("poison")
        for _ in range(2):
            await moment(cluster, operator)

    operator.cache.tracker.note_everything()
    for _ in range(3):
        await moment(cluster, operator)

    assert len(cluster.released) == 1
    assert conditions(cluster, "poison")["Stalled"]["status"] == "False"
