"""Which objects are written and deleted."""

from dataclasses import replace
from datetime import datetime, timedelta

from gpufleet_api.demand.gpu_demand import DemandRun, DemandStatus, RunState
from gpufleet_common import timestamps
from gpufleet_operator.demand.observe import ObservedRun
from gpufleet_operator.demand.plan import MAX_TEMPLATES, DeleteDemand, WriteDemand, plan_writes
from gpufleet_operator.demand.runs import PodEnds
from gpufleet_operator.model.demands.gpu_demand import Demand, OwnerReference
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_testing.operator.make import NOW

MINIMUM = timedelta(minutes=10)
OWNER = OwnerReference("apps/v1", "ReplicaSet", "web-7d4b9c6f5d", "uid-new")


def key(name: str) -> TemplateKey:
    return TemplateKey("ml", "Deployment", name, "main", "busybox")


def demand(name: str, *, written: datetime = NOW - timedelta(days=1), state: RunState = RunState.ENDED) -> Demand:
    run = DemandRun(pod_uid=f"uid-{name}", since=timestamps.micros(written), state=state, promised_mib=100, max_mib=50)
    status = DemandStatus(observed_at=timestamps.seconds(written), total_runs=1, counted_runs=1, runs=[run])
    return Demand(f"uid-{name}", "ml", key(name).name, "7", key(name), status)


def seen(owner: OwnerReference | None = None) -> ObservedRun:
    return ObservedRun(NOW - timedelta(minutes=20), NOW, 100, 60, owner)


def plan(demands: list[Demand], *running: str, owner: OwnerReference | None = None) -> list[WriteDemand | DeleteDemand]:
    observed = {(key(name), f"pod-{name}"): seen(owner) for name in running}
    pods = PodEnds(frozenset(f"pod-{name}" for name in running), frozenset())
    return plan_writes(demands, observed, pods, now=NOW, minimum=MINIMUM)


def test_new_template_gets_an_object_with_its_owner() -> None:
    (write,) = plan([], "web", owner=OWNER)
    assert isinstance(write, WriteDemand)
    assert (write.key, write.stored, write.owners, write.owners_change) == (key("web"), None, (OWNER,), True)


def test_next_run_changes_the_status_and_adds_its_owner() -> None:
    old = replace(OWNER, uid="uid-old")
    (same,) = plan([replace(demand("web"), owners=(OWNER,))], "web", owner=OWNER)
    (more,) = plan([replace(demand("web"), owners=(old,))], "web", owner=OWNER)
    assert isinstance(same, WriteDemand)
    assert isinstance(more, WriteDemand)
    assert (same.owners_change, more.owners_change, more.owners) == (False, True, (old, OWNER))


def test_owners_are_bounded() -> None:
    old = tuple(replace(OWNER, uid=f"uid-{n}") for n in range(8))
    (write,) = plan([replace(demand("web"), owners=old)], "web", owner=OWNER)
    assert isinstance(write, WriteDemand)
    assert write.owners == (*old[1:], OWNER)


def test_object_that_another_client_made_under_another_name_is_ignored() -> None:
    foreign = replace(demand("web", written=NOW - timedelta(days=90)), name="by-hand")
    assert plan([foreign]) == []


def test_object_without_runs_for_a_month_is_deleted_unless_one_runs() -> None:
    old = NOW - timedelta(days=30)
    gone = demand("gone", written=old)
    runs = demand("runs", written=old, state=RunState.RUNNING)
    found = plan_writes(
        [gone, runs, demand("young")], {}, PodEnds(frozenset({"uid-runs"}), frozenset()), now=NOW, minimum=MINIMUM
    )
    assert found == [DeleteDemand(gone)]


def test_object_whose_status_was_never_written_is_deleted_with_its_run() -> None:
    created = replace(demand("web"), status=None)
    (write,) = plan([created], "web")
    assert isinstance(write, WriteDemand)
    assert plan([created]) == [DeleteDemand(created)]


def test_full_namespace_replaces_the_object_that_was_idle_longest() -> None:
    full = [demand(f"d{n}", written=NOW - timedelta(hours=n)) for n in range(1, MAX_TEMPLATES + 1)]
    delete, write = plan(full, "web")
    assert delete == DeleteDemand(full[-1])
    assert isinstance(write, WriteDemand)
    assert write.stored is None


def test_full_namespace_of_running_templates_takes_no_more() -> None:
    full = [demand(f"d{n}", state=RunState.RUNNING) for n in range(MAX_TEMPLATES)]
    pods = PodEnds(frozenset([*(one.uid for one in full), "pod-web"]), frozenset())
    assert plan_writes(full, {(key("web"), "pod-web"): seen()}, pods, now=NOW, minimum=MINIMUM) == []
