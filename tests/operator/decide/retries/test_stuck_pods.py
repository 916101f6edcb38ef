"""Pods that wait for something that does not come."""

from datetime import timedelta

import pytest

from gpufleet_common import timestamps
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.node_leases import NodeLease, NodeLeases, observe
from gpufleet_operator.model.objects import Node, Pod, PodPhase
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits
from gpufleet_testing.operator import make, results

HUNG = make.node("node-1", not_ready="Kubelet stopped posting node status.")


def reserved(pod: Pod, *nodes: Node, **fields: NodeLeases) -> Snapshot:
    """One workload whose pod has devices of node-1; node-2 is free."""
    first = make.telemetry(assignments=[make.assignment(pod, decided_at=timestamps.micros(make.NOW))])
    node_leases = fields.get("node_leases", NodeLeases())
    return make.snapshot(make.workload(), pod, first, make.telemetry("node-2"), *nodes, node_leases=node_leases)


def silent(seconds: float) -> NodeLeases:
    """Both kubelets renewed once, node-2 also now."""
    began = make.NOW - timedelta(seconds=seconds)
    found = NodeLeases(poll_interval=timedelta(hours=1))
    leases = {name: NodeLease("a", timedelta(seconds=40)) for name in ("node-1", "node-2")}
    found = observe(found, leases, began)
    return observe(found, {**leases, "node-2": NodeLease("b", timedelta(seconds=40))}, make.NOW)


def removed(actions: Actions) -> list[tuple[str, str]]:
    return [(str(d.reason), d.message) for d in actions.deletes]


def bound(**fields: object) -> Pod:
    return make.released_pod(node="node-1", **fields)  # type: ignore[arg-type] # the fields of a builder


@pytest.mark.parametrize("pod", [bound(), make.released_pod()], ids=["bound", "not bound"])
def test_pod_without_devices_leaves_a_node_that_does_not_respond(pod: Pod) -> None:
    ((reason, message),) = removed(decide(reserved(pod, HUNG)))

    assert reason == RemovalReason.NODE_NOT_READY
    assert message == "node node-1 is not ready: Kubelet stopped posting node status."


@pytest.mark.parametrize(("seconds", "leaves"), [(40, False), (41, True)])
def test_expired_lease_counts_before_the_node_is_not_ready(seconds: float, leaves: bool) -> None:
    actions = decide(reserved(bound(), node_leases=silent(seconds)))

    assert [reason for reason, _ in removed(actions)] == ["NodeNotReady"] * leaves


def test_allocated_pod_on_a_node_that_does_not_respond_stays_not_ready() -> None:
    actions = decide(reserved(make.running_pod(), HUNG))

    assert not removed(actions)
    assert results.condition(actions.statuses[0], "Ready") == ("False", "NodeNotReady")
    assert results.condition(actions.statuses[0], "Degraded") == ("True", "NodeNotReady")


def test_gated_pod_with_devices_of_a_late_node_is_placed_elsewhere() -> None:
    late = NodeLeases(
        read_at=make.NOW,
        leases={"node-1": NodeLease("a", timedelta(seconds=40))},
        renewed_at={"node-1": make.NOW - timedelta(seconds=16)},
    )
    actions = decide(reserved(make.pod(), node_leases=late))

    assert {r.node: len(r.assignments) for r in actions.reserves} == {"node-1": 0, "node-2": 1}
    assert [r.node for r in actions.releases] == ["node-2"]


def test_late_node_is_named_when_nothing_else_fits() -> None:
    late = NodeLeases(
        read_at=make.NOW,
        leases={"node-1": NodeLease("a", timedelta(seconds=40))},
        renewed_at={"node-1": make.NOW - timedelta(seconds=16)},
    )
    actions = decide(make.snapshot(make.workload(), make.pod(), make.telemetry(), node_leases=late))

    assert not actions.reserves
    message = results.explanation(actions).message
    assert "0/2 GPUs are available: 2 on a node that is not ready" in message
    assert "kubelet of node-1 has not renewed its lease since 2026-01-02 03:03:49 UTC" in message


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ((), 'no scheduler has looked at the pod for 60 s: is there one called "volcano"?'),
        (
            ('ResourceClaim "x"',),
            'volcano has not tried to schedule the pod for 60 s: check that ResourceClaim "x" exists',
        ),
    ],
)
def test_pod_without_a_response_of_a_scheduler_is_removed_after_a_minute(claims: tuple[str, ...], words: str) -> None:
    snapshot = reserved(make.released_pod(scheduler="volcano", claims=claims))
    first = decide(snapshot)
    assert first.due == make.NOW + timedelta(seconds=60)

    assert not removed(decide(make.later(snapshot, first, 59.9)))
    after = decide(make.later(snapshot, first, 60))

    assert removed(after) == [("NotScheduled", words)]
    assert words in results.explanation(after).message


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (
            "default-scheduler",
            "has reported nothing about the pod for 660 s: check that the provisioner of {} responds",
        ),
        ("volcano", 'for 660 s: is there one called "volcano", and is {} provisioned?'),
    ],
)
def test_pod_with_a_volume_waits_as_long_as_kube_scheduler_does(scheduler: str, words: str) -> None:
    """While it binds volumes, kube-scheduler reports nothing before Kubernetes 1.35."""
    snapshot = reserved(make.released_pod(scheduler=scheduler, volume_claims=("data",)))
    first = decide(snapshot)
    assert first.due == make.NOW + timedelta(seconds=660)
    assert f'{scheduler} to bind the pod and the PersistentVolumeClaims "data"' in results.message(
        first.statuses[0], "Ready"
    )

    assert not removed(decide(make.later(snapshot, first, 659)))
    ((reason, message),) = removed(decide(make.later(snapshot, first, 660)))

    assert reason == "NotScheduled"
    assert words.format('PersistentVolumeClaim "data"') in message


def test_restart_does_not_start_the_scheduling_timeout_again() -> None:
    pod = make.released_pod()
    decided = timestamps.micros(make.NOW - timedelta(seconds=45))
    node = make.telemetry(assignments=[make.assignment(pod, decided_at=decided)])

    assert decide(make.snapshot(make.workload(), pod, node)).due == make.NOW + timedelta(seconds=15)


@pytest.mark.parametrize(
    "pod",
    [
        make.released_pod(nominated=True),
        make.released_pod(node="node-1"),
        make.released_pod(phase=PodPhase.RUNNING, node="node-1"),
        make.pod(),
    ],
    ids=["nominated", "bound", "running", "gated"],
)
def test_pod_with_a_response_is_not_silent(pod: Pod) -> None:
    snapshot = reserved(pod)

    assert not removed(decide(make.later(snapshot, decide(snapshot), 60)))


@pytest.mark.parametrize(
    "gates", [("gpufleet.dev/assignment",), ("gpufleet.dev/assignment", "kueue.x-k8s.io/admission")]
)
def test_gated_pod_with_the_name_of_another_resource_is_made_again(gates: tuple[str, ...]) -> None:
    limits = Limits(resources=Resources(whole="acme.dev/gpu"))
    snapshot = make.snapshot(make.workload(), make.pod(gates=gates), make.telemetry(), limits=limits)

    actions = decide(snapshot)

    message = "pod does not request acme.dev/gpu: the resource was renamed"
    assert removed(actions) == [("ResourceRenamed", message)]
    assert not actions.releases


def test_running_pod_with_the_name_of_another_resource_stays() -> None:
    pod = make.running_pod()
    first = make.telemetry(assignments=[make.assignment(pod)], held={"GPU-1-0": make.assignment(pod)})
    limits = Limits(resources=Resources(whole="acme.dev/gpu"))

    assert not removed(decide(make.snapshot(make.workload(), pod, first, limits=limits)))
