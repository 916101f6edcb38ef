"""With what share replicas are placed, and that nothing else changes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from gpufleet_api.demand.gpu_demand import DemandStatus
from gpufleet_api.names import DRA_DRIVER, SHARED_RESOURCE, Transport
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.demand.learned_share import learned_demand, placed_share
from gpufleet_operator.model.claims.resource_claim import ClaimReference
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.pod_state.owner import DeviceRequest, PodOwner
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.placement.model import PodNeeds, Share
from gpufleet_testing.operator import make

ASKED = 60_000
SLOT = PodNeeds(cpu_milli=100, memory_bytes=2**20, extended={SHARED_RESOURCE: 1})
KEY = TemplateKey("ml", "GPUWorkload", "train", "main", "busybox")
LEARNED = {"demand": "Learned"}
Demands = Mapping[TemplateKey, DemandStatus | None]
CLAIM = ClaimReference("gpufleet", ("main",))


def used(mib: int, runs: int = 5) -> DemandStatus:
    return DemandStatus(observed_at="2026-01-01T00:00:00Z", counted_runs=runs, p80_mib=mib)


def learned_mib(snapshot: Snapshot, workload: Workload, pods: Sequence[Pod]) -> int | None:
    found = learned_demand(snapshot, workload, pods)
    return None if found is None else found.mib


def workload(
    name: str = "train-x7k2p",
    placement: Mapping[str, str] = LEARNED,
    *,
    template: object = make.TEMPLATE,
    replicas: int = 1,
) -> Workload:
    devices = {"mode": "Shared", "memoryMiB": ASKED}
    return make.workload(name, devices=devices, placement=placement, template=template, replicas=replicas)


@pytest.mark.parametrize(
    ("placement", "demands", "expected"),
    [
        pytest.param(LEARNED, {KEY: used(10_000)}, 11_000, id="learned"),
        pytest.param(LEARNED, {KEY: used(10_000, 2)}, 40_400, id="two runs"),
        pytest.param(LEARNED, {KEY: used(10_000, 1)}, None, id="one run"),
        pytest.param(LEARNED, {}, None, id="nothing is known"),
        pytest.param(LEARNED, {KEY: None}, None, id="an object without status"),
        pytest.param({"demand": "Promised"}, {KEY: used(10_000)}, None, id="promised"),
        pytest.param({}, {KEY: used(10_000)}, None, id="the default"),
    ],
)
def test_only_workloads_that_agree_are_placed_by_learned_demand(
    placement: Mapping[str, str], demands: Demands, expected: int | None
) -> None:
    found = workload(placement=placement)
    assert learned_mib(make.snapshot(found, demands=demands), found, []) == expected
    part = placed_share(make.snapshot(found, demands=demands), found, make.spec(found), [])
    assert part == Share(ASKED if expected is None else expected, 0)


def test_each_container_must_be_known_and_the_largest_counts() -> None:
    two = [{"name": name, "image": "busybox"} for name in ("main", "side")]
    template = {"spec": {"restartPolicy": "Never", "containers": two}}
    devices = {"mode": "Shared", "memoryMiB": ASKED, "count": 2, "containers": [{"name": "main"}, {"name": "side"}]}
    found = make.workload("train", devices=devices, placement=LEARNED, template=template)
    side = replace(KEY, container="side")
    assert learned_mib(make.snapshot(found, demands={KEY: used(1000)}), found, []) is None
    both = {KEY: used(1000), side: used(3000)}
    assert learned_mib(make.snapshot(found, demands=both), found, []) == 3300


def test_pods_of_other_owners_are_known_by_their_own_templates() -> None:
    found = workload("any", template=None)
    owner = PodOwner("ReplicaSet", "web-7d4b9c6f5d", "uid-rs", "apps")
    requests = (DeviceRequest("server", "spec.containers[0]", ((SHARED_RESOURCE, 1),)),)
    pod = make.pod("any", workload_uid="", owner=owner, images=(("server", "embed:2"),), device_requests=requests)
    key = TemplateKey("ml", "Deployment", "web", "server", "embed")
    assert learned_mib(make.snapshot(found, demands={key: used(2000)}), found, [pod]) == 2200
    other = replace(pod, uid="other", owner=replace(owner, name="else-7d4b9c6f5d"))
    assert learned_mib(make.snapshot(found, demands={key: used(2000)}), found, [pod, other]) is None


@pytest.mark.parametrize(("driver", "expected"), [(DRA_DRIVER, 2200), ("gpu.nvidia.com", None)])
def test_claims_of_another_driver_keep_their_promise(driver: str, expected: int | None) -> None:
    found = workload()
    pod = make.pod(found, device_claim=ClaimReference("gpufleet", ("main",)))
    snapshot = make.snapshot(found, demands={KEY: used(2000)}, limits=Limits(dra_driver=driver))
    assert learned_mib(snapshot, found, [pod]) == expected


def test_claiming_pods_of_other_owners_are_known_by_their_own_templates() -> None:
    found = workload("any", template=None)
    owner = PodOwner("Job", "nightly-28391820", "uid-job", "batch")
    reference = ClaimReference("gpufleet", ("server",))
    pod = make.pod("any", workload_uid="", owner=owner, images=(("server", "embed:2"),), device_claim=reference)
    key = TemplateKey("ml", "CronJob", "nightly", "server", "embed")
    assert learned_mib(make.snapshot(found, demands={key: used(2000)}), found, [pod]) == 2200


@pytest.mark.parametrize(("placement", "fits"), [(LEARNED, True), ({"demand": "Promised"}, False)])
def test_learned_demand_is_placed_where_the_promise_does_not_fit(placement: Mapping[str, str], fits: bool) -> None:
    neighbor, running = make.workload("neighbor", devices={"mode": "Shared", "memoryMiB": 30_000}), "neighbor"
    holder = make.running_pod(running, needs=SLOT, devices=())
    reserved = make.assignment(holder, "GPU-1-0", workload=running, memory_mib=30_000, resource=SHARED_RESOURCE)
    found = workload("train", placement=placement)
    cluster = (neighbor, holder, found, make.pod(found, needs=SLOT), make.telemetry(devices=1, assignments=[reserved]))
    actions = decide(make.snapshot(*cluster, demands={KEY: used(10_000)}))
    assigned = [a for r in actions.reserves for a in r.assignments if a.workload == "train"]
    assert [(a.memory_mib, a.demand_mib, a.demand_runs) for a in assigned] == ([(ASKED, 11_000, 5)] if fits else [])


def test_status_names_what_a_placed_replica_counts_with() -> None:
    found = workload("train", replicas=2)
    pods = [make.pod(found, index, needs=SLOT) for index in range(2)]
    actions = decide(make.snapshot(found, *pods, make.telemetry(devices=1), demands={KEY: used(10_000, 14)}))
    status = actions.statuses[0].status
    assert [(p.demand_mib, p.demand_runs) for p in status.placements] == [(11_000, 14)] * 2
    (placed,) = (condition for condition in status.conditions if condition.type == "Placed")
    assert placed.message == "replicas: 2 on node-1; counted with 11,000 MiB learned from 14 runs"


@pytest.mark.parametrize(
    ("placement", "demands", "driver", "expected"),
    [
        pytest.param(LEARNED, {KEY: used(78_000, 14)}, DRA_DRIVER,
                     " Counted with 78,000 MiB learned from 14 runs.", id="learned"),
        pytest.param(LEARNED, {KEY: used(78_000, 1)}, DRA_DRIVER,
                     " Counted with the promised 60,000 MiB: fewer than 2 runs are known.", id="too few runs"),
        pytest.param(LEARNED, {KEY: used(10_000)}, "gpu.nvidia.com",
                     " Counted with the promised 60,000 MiB: the claims of another driver keep it.", id="other driver"),
        pytest.param({}, {KEY: used(10_000)}, DRA_DRIVER, "", id="by promises"),
    ],
)  # fmt: skip
def test_explanation_names_what_a_waiting_replica_counts_with(
    placement: Mapping[str, str], demands: Demands, driver: str, expected: str
) -> None:
    neighbor = make.workload("neighbor", devices={"mode": "Shared", "memoryMiB": 30_000})
    holder = make.running_pod("neighbor", needs=SLOT, devices=())
    reserved = make.assignment(holder, "GPU-1-0", workload="neighbor", memory_mib=30_000, resource=SHARED_RESOURCE)
    found = workload("train", placement=placement)
    pod = make.pod(found, needs=PodNeeds(cpu_milli=100, memory_bytes=2**20, extended={}), device_claim=CLAIM)
    node = make.telemetry(devices=1, assignments=[reserved], transport=Transport.DRA)
    limits = Limits(dra_driver=driver)
    actions = decide(make.snapshot(neighbor, holder, found, pod, node, demands=demands, limits=limits))
    (explained,) = (w.status.explanation for w in actions.statuses if w.status.explanation is not None)
    assert explained.message.startswith("0/1 GPUs are available: 1 insufficient memory.")
    assert explained.message.partition(").")[2] == expected


def test_two_that_are_picked_in_one_pass_share_what_is_left() -> None:
    found = workload("train", replicas=9)
    pods = [make.pod(found, index, needs=SLOT) for index in range(9)]
    actions = decide(make.snapshot(found, *pods, make.telemetry(devices=1), demands={KEY: used(10_000)}))
    assert sum(len(r.assignments) for r in actions.reserves) == 7, "81,559 MiB have room for seven times 11,000"


@pytest.mark.parametrize(
    ("driver", "memory_mib", "reasons"),
    [
        (DRA_DRIVER, 10_900, []),
        (DRA_DRIVER, 50_000, ["TransportChanged"]),
        ("gpu.nvidia.com", 50_000, []),
        ("gpu.nvidia.com", 70_000, ["TransportChanged"]),
    ],
)
def test_pod_gets_a_claim_only_where_it_fits(driver: str, memory_mib: int, reasons: list[str]) -> None:
    """By its learned demand of 11,000, or by its promise of 60,000 if the claim keeps it."""
    found = workload("train")
    full = make.telemetry(devices=1, memoryTotalMiB=10_000)
    other = make.telemetry("node-2", devices=1, transport=Transport.DRA, memoryTotalMiB=memory_mib)
    nodes = (make.node(), make.node("node-2", devices=0))
    cluster = (found, make.pod(found, needs=SLOT), *nodes, full, other)
    limits = Limits(dra_driver=driver)
    actions = decide(make.snapshot(*cluster, demands={KEY: used(10_000)}, limits=limits))
    assert [delete.reason for delete in actions.deletes] == reasons
    assert not actions.reserves
