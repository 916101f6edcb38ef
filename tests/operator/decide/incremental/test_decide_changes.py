"""A decision on what changed is the decision on the whole cluster, and looks at what changed only."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Unpack

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from prometheus_client import CollectorRegistry

from gpufleet_api.telemetry.spec import CordonedDevice
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.decide.incremental.region import Region, Seeds, close
from gpufleet_operator.fleet.build import NodeInputs, node_state_of
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.placement.model import NodeState
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator import make
from gpufleet_testing.operator.decisions import AppliedDecisions
from gpufleet_testing.operator.fields import PodFields
from gpufleet_testing.operator.from_scratch import checked_decision
from gpufleet_testing.operator.synthetic import SyntheticFleet

NODES, RUNNING, WAITING = 3, 6, 3


class SmallFleet:
    """Three nodes, six running workloads and three that wait for memory that no device has."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.now = make.NOW
        self.cache = Cache()
        self.fleet = SyntheticFleet(NODES, RUNNING, WAITING, self.now)
        self.fleet.fill(self.cache)
        self.applied = AppliedDecisions(self.fleet, self.cache)
        self.submitted = RUNNING + WAITING
        self.reconciler = Reconciler(
            self.cache,
            self.applied,
            limits or Limits(),
            ServerClock(lambda: self.now),
            Metrics(CollectorRegistry()),
            name_seed=lambda: "seed",
            resync_interval_seconds=10,
            decide=checked_decision,
        )

    def run_pass(self) -> Actions:
        self.now += timedelta(milliseconds=50)
        return self.reconciler.decide_once()

    def settle(self) -> None:
        for _ in range(20):
            actions = self.run_pass()
            if actions.empty:
                return
            asyncio.run(self.applied.run(actions))
        raise AssertionError("the fleet does not settle")

    # Changes of one object each.

    def pod_readiness(self, number: int) -> None:
        pod = self.cache.pods.items[f"uid-{self.fleet.pod_name(number % RUNNING)}"]
        self._put_pod(pod.uid, ready=not pod.ready)

    def pod_is_gone(self, number: int) -> None:
        """Its containers ended; the workload has completed, so no pod is made for it again."""
        self.cache.pods.remove(f"uid-{self.fleet.pod_name(RUNNING + number % WAITING)}", "")
        self.cache.workloads.remove(f"uid-{self.fleet.workload_name(RUNNING + number % WAITING)}", "")

    def _put_pod(self, uid: str, /, **fields: Unpack[PodFields]) -> None:
        if uid in self.cache.pods.items:
            changed: PodFields = {**fields, "resource_version": self._next()}
            self.cache.pods.put(replace(self.cache.pods.items[uid], **changed))

    def report(self, number: int) -> None:
        self.applied.telemetry(self.fleet.node_name(number % NODES), celsius=40 + number, at=self.now)

    def renewal(self, number: int) -> None:
        self.applied.renewal(self.fleet.node_name(number % NODES), self.now)

    def cordoned(self, number: int, *, drain: bool = False) -> None:
        name, uuid = self.fleet.node_name(number % NODES), self.fleet.uuid(number % NODES, number % 8)
        stored = self.cache.telemetry.by_name[name]
        entries = [] if stored.model.spec.cordoned else [CordonedDevice(uuid=uuid, reason="fan", drain=drain)]
        spec = stored.model.spec.model_copy(update={"cordoned": entries})
        model = stored.model.model_copy(update={"spec": spec})
        self.cache.telemetry.put(replace(stored, resource_version=self._next(), model=model))

    def change_reservations(self, name: str, **fields: object) -> None:
        stored = self.cache.telemetry.by_name[name]
        changed = [one.model_copy(update=fields) for one in stored.assignments]
        model = stored.model.model_copy(update={"spec": stored.model.spec.model_copy(update={"assignments": changed})})
        self.cache.telemetry.put(replace(stored, resource_version=self._next(), model=model))

    def node_unschedulable(self, number: int) -> None:
        node = self.cache.nodes.by_name[self.fleet.node_name(number % NODES)]
        self.cache.nodes.put(replace(node, resource_version=self._next(), unschedulable=not node.unschedulable))

    def other_pod(self, number: int) -> None:
        uid = f"uid-agent-{number % NODES:05d}-{number % 20}"
        if uid in self.cache.other_pods.items:
            self.cache.other_pods.remove(uid, self._next())

    def submit(self, number: int) -> None:
        if self.submitted < RUNNING + WAITING + 6:
            count = 1 + number % 8
            self.fleet.submit(self.cache, self.submitted, devices={"count": count}, placement=_placement(number))
            self.submitted += 1

    def submit_gang(self, number: int) -> None:
        """It waits for all devices of a node, which are earmarked for it later. Some have a higher priority."""
        if self.submitted < RUNNING + WAITING + 6:
            placement = {"gang": True, "minRuntimeSeconds": 5 * (number % 3)}
            self.fleet.submit(self.cache, self.submitted, devices={"count": 8}, placement=placement)
            self._put_pod(f"uid-{self.fleet.pod_name(self.submitted)}", priority=number % 3)
            self.submitted += 1

    def suspend(self, number: int) -> None:
        """Of a workload that waits."""
        stored = self.cache.workloads.items.get(f"uid-{self.fleet.workload_name(RUNNING + number % WAITING)}")
        if stored is not None and stored.model is not None and not stored.model.spec.suspend:
            spec = stored.model.spec.model_copy(update={"suspend": True})
            model = stored.model.model_copy(update={"spec": spec})
            changed = replace(stored, resource_version=self._next(), generation=stored.generation + 1, model=model)
            self.cache.workloads.put(changed)

    def time_passes(self, number: int) -> None:
        self.now += timedelta(seconds=(0.5, 3, 11, 40, 95)[number % 5])

    def listed(self, number: int) -> None:
        del number
        self.cache.tracker.note_everything()

    def _next(self) -> str:
        return str(self.applied.next_version())


def _placement(number: int) -> Mapping[str, Any]:
    return {"strategy": ("Best", "Pack", "Spread")[number % 3]}


CHANGES: tuple[Callable[[SmallFleet, int], None], ...] = (
    SmallFleet.pod_readiness,
    SmallFleet.report,
    SmallFleet.renewal,
    SmallFleet.cordoned,
    SmallFleet.node_unschedulable,
    SmallFleet.other_pod,
    SmallFleet.submit,
    SmallFleet.submit_gang,
    SmallFleet.time_passes,
    SmallFleet.listed,
    SmallFleet.pod_is_gone,
)
HISTORIES = st.lists(
    st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 40)), min_size=1, max_size=3), max_size=12
)


@pytest.mark.histories
@settings(max_examples=histories(8), suppress_health_check=list(HealthCheck))
@given(HISTORIES)
def test_decision_on_any_history_is_that_on_the_whole_cluster(
    history: list[list[tuple[Callable[[SmallFleet, int], None], int]]],
) -> None:
    fleet = SmallFleet()
    for changes in history:
        for change, number in changes:
            change(fleet, number)
        actions = fleet.run_pass()
        if not (actions.creates or actions.deletes or actions.evictions):
            asyncio.run(fleet.applied.run(replace(actions, reports=replace(actions.reports, telemetry=(), nodes=()))))


def regions(fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch) -> list[Region]:
    """The regions of later passes."""
    found: list[Region] = []

    def noted(seeds: Seeds, snapshot: Snapshot, index: ClusterIndex) -> Region:
        found.append(close(seeds, snapshot, index))
        return found[-1]

    monkeypatch.setattr("gpufleet_operator.decide.incremental.decide_changes.close", noted)
    fleet.settle()
    fleet.run_pass()
    found.clear()
    return found


def test_change_of_a_pod_looks_at_its_workload_and_node(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SmallFleet()
    found = regions(fleet, monkeypatch)

    fleet.pod_readiness(1)
    fleet.run_pass()

    (region,) = found
    assert region.workloads == {"uid-job-000001"}
    assert region.nodes == {"node-00001"}


def test_new_measurements_look_at_no_workload_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait are not asked again: the node has too little memory for any of them."""
    fleet = SmallFleet()
    found = regions(fleet, monkeypatch)

    fleet.report(2)
    fleet.run_pass()

    (region,) = found
    assert region.nodes == {"node-00002"}
    assert region.workloads == set()


def test_renewal_of_a_lease_looks_at_no_workload_and_builds_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SmallFleet()
    found, built = regions(fleet, monkeypatch), list[str]()
    monkeypatch.setattr(
        "gpufleet_operator.decide.incremental.region_source.node_state_of", lambda _, inputs: built.append(inputs.name)
    )

    fleet.now += timedelta(seconds=1)
    fleet.renewal(2)
    actions = fleet.run_pass()

    assert actions.empty
    (region,) = found
    assert region.nodes == {"node-00002"}
    assert region.workloads == set()
    assert built == []


def test_report_is_used_while_its_lease_is_renewed() -> None:
    fleet = SmallFleet()
    fleet.settle()

    def stale_after(renewed: Collection[int]) -> set[str]:
        stale = set()
        for _ in range(4):
            fleet.now += timedelta(seconds=30)
            for number in renewed:
                fleet.renewal(number)
            written = [*fleet.run_pass().reports.telemetry]
            stale |= {one.node for one in written for c in one.conditions if (c.type, c.status) == ("Fresh", "False")}
        return stale

    assert stale_after(range(NODES)) == set()
    assert stale_after([0, 1]) == {"node-00002"}


def silent(fleet: SmallFleet) -> None:
    """The other nodes report, so that this one is stale by itself."""
    for _ in range(4):
        fleet.now += timedelta(seconds=30)
        fleet.report(0)
        fleet.report(1)
        fleet.run_pass()


def ends(fleet: SmallFleet) -> None:
    """It does not change the report."""
    fleet.cache.pods.remove(f"uid-{fleet.fleet.pod_name(2)}", "")
    fleet.run_pass()


def shared(fleet: SmallFleet) -> None:
    fleet.change_reservations("node-00002", memory_mib=1000)
    fleet.settle()


def drained(fleet: SmallFleet) -> None:
    fleet.cordoned(2, drain=True)
    fleet.run_pass()


@pytest.mark.parametrize("before", [silent, ends, shared, drained])
def test_report_that_a_decision_may_wait_for_looks_at_workloads(
    before: Callable[[SmallFleet], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = SmallFleet()
    found = regions(fleet, monkeypatch)
    before(fleet)
    found.clear()

    fleet.report(2)
    fleet.run_pass()

    assert {"uid-job-000002", "uid-job-000005"} <= found[-1].workloads


def test_new_workload_gets_devices_of_a_node_outside_of_its_region(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SmallFleet()
    found = regions(fleet, monkeypatch)

    fleet.submit(0)
    actions = fleet.run_pass()

    assert [r.workload_uid for r in actions.releases] == ["uid-job-000009"]
    assert [reserve.node for reserve in actions.reserves] == [actions.releases[0].node]
    assert len(found) == 2, "the second region has the picked node"


def test_state_of_a_node_is_built_again_when_the_node_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SmallFleet()
    fleet.settle()
    built: list[str] = []

    def noted(snapshot: Snapshot, inputs: NodeInputs) -> NodeState:
        built.append(inputs.name)
        return node_state_of(snapshot, inputs)

    monkeypatch.setattr("gpufleet_operator.decide.incremental.region_source.node_state_of", noted)
    fleet.pod_readiness(1)
    fleet.run_pass()
    assert built == [], "neither a device nor a request changed"

    fleet.report(1)
    fleet.run_pass()
    assert built == ["node-00001"]


def test_pass_looks_at_the_first_of_the_queue_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SmallFleet(Limits(reserve_after=timedelta(0)))
    fleet.fleet.submit(fleet.cache, RUNNING + WAITING, devices={"count": 8}, placement={"gang": True})
    found = regions(fleet, monkeypatch)

    fleet.pod_readiness(1)
    fleet.run_pass()

    (region,) = found
    assert region.workloads >= {"uid-job-000001", "uid-job-000009"}


def test_workload_that_waits_gets_a_device_that_becomes_free() -> None:
    fleet = SmallFleet()
    fleet.settle()
    for _ in range(3):
        fleet.submit(7)  # eight devices: no node has all of them
    fleet.settle()

    stored = fleet.cache.telemetry.by_name["node-00000"]
    for number in fleet.fleet.on_node(0):
        fleet.cache.workloads.remove(f"uid-{fleet.fleet.workload_name(number)}", "")
        fleet.cache.pods.remove(f"uid-{fleet.fleet.pod_name(number)}", "")
    spec = stored.model.spec.model_copy(update={"assignments": []})
    assert stored.status is not None
    idle = {"allocated_to": [], "process_count": 0}
    devices = [device.model_copy(update=idle) for device in stored.status.devices]
    status = stored.status.model_copy(update={"devices": devices})
    model = stored.model.model_copy(update={"spec": spec, "status": status})
    fleet.cache.telemetry.put(replace(stored, resource_version="900000", model=model))
    actions = fleet.run_pass()

    assert [(r.name, r.node) for r in actions.releases] == [(fleet.fleet.pod_name(9), "node-00000")]


def test_exception_in_a_pass_lets_the_next_one_decide_from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SmallFleet()
    found = regions(fleet, monkeypatch)
    fleet.pod_readiness(1)
    decided = fleet.reconciler._decide

    def fail(*_: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(fleet.reconciler, "_decide", fail)
    try:
        fleet.run_pass()
    except ZeroDivisionError:
        monkeypatch.setattr(fleet.reconciler, "_decide", decided)

    actions = fleet.run_pass()

    assert [status.name for status in actions.statuses] == ["job-000001"]
    assert not found, "no region: everything is looked at"
