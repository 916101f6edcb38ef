"""The kubelet's request to a device plugin names no pod; each pod must get its own devices nevertheless."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from gpufleet_e2e.faults.fault_injection import BLOCKED_LABELS, release_blocked
from gpufleet_e2e.proof.api_reader import describe_conditions
from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

ROUNDS = 10


def test_two_workloads_are_handed_over_together(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the agent reads from the kubelet which pod is under admission (List in GetPreferredAllocation).

    Two workloads of equal size are created in parallel and picked on one node; every source names each container's own
    devices. The pods of one round still terminate while the next begins. In most rounds both must be picked before
    either container starts: then both pods are between reservation and start at the same time.
    """
    node = fleet.nodes[0]
    together = 0
    for number in range(ROUNDS):
        names = (f"left-{number}", f"right-{number}")
        _apply_in_parallel(namespace, [gpuworkload(name, count=2, node=node) for name in names])
        evidence = namespace.verify(*names)
        picked = [set(evidence[name].replicas[0].picked) for name in names]
        assert not picked[0] & picked[1]
        decided = max(datetime.fromisoformat(namespace.reservation(name)["decidedAt"]) for name in names)
        # The kubelet reports whole seconds, rounded down.
        together += decided < min(_started(namespace.pod(name)) for name in names) + timedelta(seconds=1)
        namespace.delete(*names)
    assert together > ROUNDS // 2


def test_later_pod_is_admitted_first(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: as above, in the order for which a match by size and age is wrong.

    The first workload is reserved and blocked; the second one, of equal size on the same node, is admitted before it.
    """
    first, second = _overtaken(namespace, fleet, lambda: namespace.wait_ready("second"))
    evidence = namespace.verify("first", "second")
    assert evidence["first"].replicas[0].picked == first, "the first pod did not get its reserved devices"
    assert evidence["second"].replicas[0].picked == second


@pytest.fixture
def first_fit(fleet: Fleet) -> Iterator[None]:
    """Every agent matches requests by size and age instead of reading the kubelet."""
    fleet.install(agent_args=["--pod-matching=first-fit"])
    yield
    fleet.restore_later()


def test_mismatch_without_the_mechanism_is_detected(namespace: TestNamespace, fleet: Fleet, first_fit: None) -> None:
    """The negative control: without the mechanism the same order gives the second pod the first one's devices.

    The operator detects it (DeviceMismatch), reports both sets of devices, and replaces the pod.
    """
    messages: list[str] = []
    first, _ = _overtaken(
        namespace,
        fleet,
        lambda: messages.append(namespace.event("second", "DeviceMismatch", within=30)),
    )
    reserved, held = messages[0].split(", but kubelet reports ")
    assert all(uuid in held for uuid in first), f"it should hold the first one's devices {first}: {messages[0]}"
    assert not any(uuid in reserved for uuid in first), messages[0]


def _overtaken(
    namespace: TestNamespace, fleet: Fleet, watch: Callable[[], None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Admits `second` before `first`, and calls `watch` in between; returns both reservations."""
    node = fleet.nodes[1]
    with release_blocked(fleet.api, namespace.name):
        namespace.apply(gpuworkload("first", count=2, node=node, labels=BLOCKED_LABELS))
        first = eventually(lambda: _devices(namespace.reservation("first")), within=15)
        namespace.apply(gpuworkload("second", count=2, node=node))
        second = eventually(lambda: _devices(namespace.reservation("second")), within=15)
        watch()
        gates = namespace.pod("first")["spec"].get("schedulingGates")
        assert gates, f"the first pod was released: {describe_conditions(namespace.workload('first'))}"
    return first, second


def _started(pod: JsonObject) -> datetime:
    (container,) = pod["status"]["containerStatuses"]
    return datetime.fromisoformat(container["state"]["running"]["startedAt"])


def _devices(assignment: JsonObject) -> tuple[str, ...]:
    return tuple(sorted(assignment["devices"]))


def _apply_in_parallel(namespace: TestNamespace, manifests: list[JsonObject]) -> None:
    with ThreadPoolExecutor(len(manifests)) as pool:
        list(pool.map(namespace.apply, manifests))
