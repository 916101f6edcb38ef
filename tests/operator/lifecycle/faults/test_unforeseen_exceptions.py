"""An exception that no rule foresees, in the decision on one workload: the others go on, and its condition names it."""

from collections.abc import Callable
from typing import Any

import pytest

from gpufleet_operator.decide import plan, replicas, writes
from gpufleet_operator.status import build
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment


def poisoned(function: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
    """Returns a function that raises for workload `poison`."""

    def call(*args: object, **kwargs: object) -> Any:
        if name_of(*args) == "poison":
            raise KeyError("surprise")
        return function(*args, **kwargs)

    return call


FAILING: dict[str, tuple[Any, str, Callable[..., str]]] = {
    "assessment": (replicas._ReplicaAssessor, "assess_all", lambda self, _: self.workload.name),
    "placement": (plan._Planner, "_place_workload", lambda _, assessed, __: assessed.workload.name),
    "status": (build, "placements", lambda context: context.workload.name),
    "creation": (writes, "_creates", lambda snapshot, state, assessed, creations: assessed.workload.name),
    "release": (writes, "_releases", lambda assessed, ready, claims: assessed.workload.name if ready else ""),
}


@pytest.mark.parametrize(("owner", "name", "name_of"), FAILING.values(), ids=FAILING)
async def test_exception_about_one_workload_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, name_of: Callable[..., str]
) -> None:
    cluster = FakeCluster(2, 2)
    monkeypatch.setattr(owner, name, poisoned(getattr(owner, name), name_of))
    cluster.submit("good", replicas=2)
    cluster.submit("poison")
    operator = OperatorProcess(cluster, checked=True)

    for _ in range(4):
        await moment(cluster, operator)

    invariants.check_always(cluster)
    good, poison = (
        {c["type"]: c for c in cluster.objects["workloads", f"ml/{name}"]["status"]["conditions"]}
        for name in ("good", "poison")
    )
    assert good["Placed"]["status"] == "True"
    assert len(cluster.released) >= 2
    assert poison["Stalled"]["reason"] == "InternalError"
    assert poison["Stalled"]["message"] == "spec: Internal error: KeyError: 'surprise'"


async def test_workload_recovers_from_an_exception_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    owner, name, name_of = FAILING["placement"]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, poisoned(getattr(owner, name), name_of))
        cluster.submit("poison")
        for _ in range(2):
            await moment(cluster, operator)

    operator.cache.tracker.note_everything()
    for _ in range(3):
        await moment(cluster, operator)

    assert len(cluster.released) == 1
    conditions = {c["type"]: c["status"] for c in cluster.objects["workloads", "ml/poison"]["status"]["conditions"]}
    assert conditions["Stalled"] == "False"
