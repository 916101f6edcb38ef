"""Workloads that cannot run, for ten minutes: few pods, few events, never without a message, and no device kept."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_operator.model.pod_policy import PodPolicy
from gpufleet_operator.model.state_types import Limits
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.invariants import check_messages
from gpufleet_testing.operator.process import OperatorProcess

TEN_MINUTES = 600
MAX_PODS = 3
"""Per workload in ten minutes: six of them make fewer than 20 pods."""
MAX_EVENTS = 10
WITH_VOLCANO = Limits(pod_policy=PodPolicy(schedulers=("default-scheduler", "volcano")))
"""A scheduler that is configured and does not run."""


def template(**spec: object) -> Json:
    return {"spec": {"restartPolicy": "Always", "containers": [{"name": "main", "image": "busybox"}], **spec}}


async def live(world: FakeCluster, operator: OperatorProcess, seconds: float) -> None:
    """Lets time pass: a second at a time while something happens, else a minute or until the operator is due."""
    end = world.now + timedelta(seconds=seconds)
    while world.now < end:
        position, sent = len(world.log), world.sent
        due = await _pass(world, operator)
        world.scheduler()
        for node in world.kubelets:
            world.kubelet(node)
        is_new = len(world.log) > position or world.sent > sent or (due is not None and due <= world.now)
        if is_new:  # else another pass at this moment would decide the same
            due = await _pass(world, operator) or due  # between the kubelet and the agent's report
        for node in world.kubelets:
            world.agent(node)
        await _pass(world, operator)
        world.collector()
        quiet = all(kind == "telemetry" for _, kind, _ in world.log[position:])
        until_due = (due - world.now).total_seconds() if due is not None and due > world.now else 60.0
        left = max(1.0, (end - world.now).total_seconds())
        world.advance(min(60.0, left, max(1.0, until_due)) if quiet else 1.0)


async def _pass(world: FakeCluster, operator: OperatorProcess) -> datetime | None:
    operator.hear(10_000)
    due = await operator.act()
    check_messages(world)
    return due


def pods_made(world: FakeCluster) -> Counter[str]:
    names = {body["metadata"]["name"] for event, kind, body in world.log if kind == "pods" and event == "ADDED"}
    return Counter(name.rpartition("-")[0].rpartition("-")[0] for name in names)


def condition(world: FakeCluster, name: str, kind: str) -> Json:
    found: list[Json] = world.objects["workloads", f"ml/{name}"]["status"]["conditions"]
    return next(c for c in found if c["type"] == kind)


def broken_binding(world: FakeCluster) -> None:
    world.reject_binding.update(world.kubelets)


def broken_admission(world: FakeCluster) -> None:
    world.reject_admission.update(world.kubelets)
    world.admission_reason, world.admission_message = "SysctlForbidden", 'forbidden sysctl: "kernel.msgmax"'


def absent_plugin(world: FakeCluster) -> None:
    world.reject_admission.update(world.kubelets)


def another_plugin(world: FakeCluster) -> None:
    world.other_plugin.update(world.kubelets)


@pytest.mark.parametrize("breaks", [broken_binding, broken_admission, absent_plugin, another_plugin])
async def test_six_workloads_that_cannot_run_make_few_pods(breaks: Callable[[FakeCluster], None]) -> None:
    """With another plugin the first witness confirms the devices each time before the second contradicts it."""
    world = FakeCluster(2, 6)
    breaks(world)
    operator = OperatorProcess(world)
    names = [f"w{number}" for number in range(6)]
    for name in names:
        world.submit(name, template=template())

    await live(world, operator, TEN_MINUTES)

    made = pods_made(world)
    assert max(made.values()) <= MAX_PODS, made
    assert sum(made.values()) <= 20
    assert not list(world.ledger()), "devices are kept for pods that cannot run"
    for name in names:
        assert world.events_about(name) <= MAX_EVENTS
        assert "rejected" in condition(world, name, "Ready")["message"]


Disturbance = Callable[[FakeCluster, OperatorProcess, int], OperatorProcess]


def label_changes(world: FakeCluster, operator: OperatorProcess, number: int) -> OperatorProcess:
    for name in world.kubelets:
        node = world.objects["nodes", name]
        labels = {"number": str(number)}
        world.store("nodes", name, {**node, "metadata": {**node["metadata"], "labels": labels}})
    return operator


def pod_of_another_ends(world: FakeCluster, operator: OperatorProcess, number: int) -> OperatorProcess:
    for pod in world.of("pods"):
        if pod["metadata"]["name"].startswith(f"job{number}-") and pod["status"]["phase"] == "Running":
            world.finish(f"ml/{pod['metadata']['name']}", "Succeeded")
    return operator


def operator_restarts(world: FakeCluster, operator: OperatorProcess, number: int) -> OperatorProcess:
    del operator, number
    return OperatorProcess(world)


def everything(world: FakeCluster, operator: OperatorProcess, number: int) -> OperatorProcess:
    label_changes(world, operator, number)
    pod_of_another_ends(world, operator, number)
    return OperatorProcess(world)


def volumes_are_in_use(world: FakeCluster) -> None:
    world.binding_message = "0/2 nodes are available: 2 node(s) exceed max volume count."
    broken_binding(world)


def volume_is_elsewhere(world: FakeCluster) -> None:
    world.binding_message = "0/2 nodes are available: 2 node(s) had volume node affinity conflict."
    broken_binding(world)


@pytest.mark.parametrize(
    ("disturb", "breaks"),
    [
        (pod_of_another_ends, volumes_are_in_use),
        (label_changes, volume_is_elsewhere),
        (everything, volumes_are_in_use),
        (everything, volume_is_elsewhere),
        (label_changes, broken_admission),
        (pod_of_another_ends, broken_admission),
        (operator_restarts, broken_admission),
        (everything, broken_binding),
        (everything, another_plugin),
        (everything, absent_plugin),
    ],
)
async def test_six_workloads_that_cannot_run_make_few_pods_while_others_change(
    disturb: Disturbance, breaks: Callable[[FakeCluster], None]
) -> None:
    """Each minute, in ten minutes, also what the rejections name. The counts survive a restart."""
    world = FakeCluster(2, 10)
    operator = OperatorProcess(world)
    for number in range(10):
        world.submit(f"job{number}", restart_policy="Never")
    await live(world, operator, 10)
    breaks(world)
    for number in range(6):
        world.submit(f"w{number}", template=template())

    for minute in range(10):
        await live(world, operator, 60)
        operator = disturb(world, operator, minute)

    made = {name: count for name, count in pods_made(world).items() if name.startswith("w")}
    assert sum(made.values()) <= 20, made
    assert max(made.values()) <= MAX_PODS, made
    for number in range(6):
        assert condition(world, f"w{number}", "Ready")["reason"] == "PlacementBackOff"


@pytest.mark.parametrize("dra", [0, 1], ids=["DevicePlugin", "DRA"])
async def test_change_that_a_rejection_names_is_tried_after_a_minute(dra: int) -> None:
    world = FakeCluster(1, 1, dra=dra)
    world.binding_message = "0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."
    broken_binding(world)
    operator = OperatorProcess(world)
    world.submit("one", template=template())
    await live(world, operator, 45)
    assert condition(world, "one", "Ready")["reason"] == "PlacementBackOff"

    world.reject_binding.clear()
    node = world.objects["nodes", "node-1"]
    world.store("nodes", "node-1", {**node, "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}})
    await live(world, operator, 60)

    assert condition(world, "one", "Allocated")["status"] == "True"


async def test_paused_gang_has_no_pods_unless_it_fits_on_the_other_nodes() -> None:
    """A node that was not tried may be tried, but the gang needs both: gated pods would use quota until the end."""
    world = FakeCluster(3, 1)
    world.binding_message = "0/3 nodes are available: 1 Insufficient cpu."
    operator = OperatorProcess(world)
    world.submit("other", devices={"count": 1})
    await live(world, operator, 20)
    world.reject_binding.update(world.kubelets)
    world.submit("gang", template=template(), replicas=2, placement={"gang": True})
    await live(world, operator, 60)
    made = pods_made(world)["gang"]

    for _ in range(50):
        await live(world, operator, 10)
        assert condition(world, "gang", "Ready")["reason"] == "PlacementBackOff"
        assert len(world.of("pods")) == 1, "the gang has pods"

    assert pods_made(world)["gang"] == made


async def test_workload_runs_when_its_retry_pause_ends() -> None:
    world = FakeCluster(1, 1)
    broken_admission(world)
    operator = OperatorProcess(world)
    world.submit("one", template=template())
    await live(world, operator, 60)
    assert condition(world, "one", "Ready")["reason"] == "PlacementBackOff"

    world.reject_admission.clear()
    await live(world, operator, TEN_MINUTES + 30)

    assert condition(world, "one", "Allocated")["status"] == "True"


async def test_devices_of_a_pod_without_a_scheduler_are_released() -> None:
    world = FakeCluster(1, 1)
    operator = OperatorProcess(world, WITH_VOLCANO)
    world.submit("one", template=template(schedulerName="volcano"))
    await live(world, operator, 59)
    assert len(list(world.ledger())) == 1
    assert "volcano" in condition(world, "one", "Ready")["message"]
    world.submit("two", template=template())

    await live(world, operator, 20)

    message = condition(world, "one", "Ready")["message"]
    assert 'no scheduler has looked at the pod for 60 s: is there one called "volcano"?' in message
    assert condition(world, "two", "Allocated")["status"] == "True", "the device was not given back"


async def test_workloads_without_a_scheduler_make_few_pods() -> None:
    world = FakeCluster(2, 6)
    operator = OperatorProcess(world, WITH_VOLCANO)
    for number in range(6):
        world.submit(f"w{number}", template=template(schedulerName="volcano"))

    await live(world, operator, TEN_MINUTES)

    assert max(pods_made(world).values()) <= MAX_PODS


async def test_gang_with_a_rejected_member_releases_all_devices() -> None:
    """Its other members would run without a use. When the node accepts pods again, the gang is placed as a whole."""
    world = FakeCluster(2, 1)
    operator = OperatorProcess(world)
    world.reject_binding.add("node-2")
    world.submit("gang", template=template(), replicas=2, placement={"gang": True})
    await live(world, operator, 30)

    assert not world.of("pods")
    assert not list(world.ledger())
    assert "kube-scheduler rejected the pod on node node-2" in condition(world, "gang", "Ready")["message"]
    world.submit("other", template=template())
    await live(world, operator, 60)
    assert condition(world, "other", "Allocated")["status"] == "True", "the devices of the gang are not free"

    world.remove("workloads", "ml/other")
    world.reject_binding.clear()
    await live(world, operator, TEN_MINUTES)

    assert condition(world, "gang", "Allocated")["status"] == "True"
    assert pods_made(world)["gang"] <= 8


async def test_lost_response_to_a_deletion_counts_a_rejection_once() -> None:
    world = FakeCluster(1, 1)
    broken_admission(world)
    operator = OperatorProcess(world)
    world.submit("one", template=template())
    delete, failures = world.delete_pod, iter([True, True])

    async def lost(namespace: str, name: str, uid: str, resource_version: str) -> None:
        if next(failures, False):
            raise UnavailableError("no answer")
        await delete(namespace, name, uid, resource_version)

    world.delete_pod = lost  # type: ignore[method-assign] # its response is lost
    await live(world, operator, 60)

    assert pods_made(world)["one"] == MAX_PODS
