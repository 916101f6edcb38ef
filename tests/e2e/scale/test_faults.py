"""What contradicts the ledger is found, and nothing else."""

from typing import Any

from gpufleet_e2e.scale.faults import faults


def node(name: str, *assignments: tuple[str, str]) -> dict[str, Any]:
    """A node whose devices are assigned to pods, as (pod, device)."""
    entries = [{"pod": pod, "podUID": f"uid-{pod}", "devices": [device]} for pod, device in assignments]
    return {"metadata": {"name": name}, "spec": {"assignments": entries}}


def pod(name: str, on: str | None = None, **spec: object) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": {**({"nodeName": on} if on else {}), **spec}}


def test_pods_on_their_reserved_nodes_and_gated_pods_are_no_fault() -> None:
    fleet = [node("n1", ("a", "GPU-1"), ("b", "GPU-2")), {"metadata": {"name": "n2"}}]
    found = [pod("a", "n1"), pod("b"), pod("c", schedulingGates=[{"name": "gpufleet.dev/assignment"}])]
    assert faults(fleet, found) == []


def test_device_that_is_assigned_twice_is_reported() -> None:
    assert faults([node("n1", ("a", "GPU-1"), ("b", "GPU-1"))], []) == ["n1: device GPU-1 is assigned 2 times"]


def test_pod_with_two_reservations_is_reported() -> None:
    fleet = [node("n1", ("a", "GPU-1")), node("n2", ("a", "GPU-9"))]
    assert faults(fleet, []) == ["pod a has reservations on n1 and n2"]


def test_released_pod_without_reservation_or_on_another_node_is_reported() -> None:
    assert faults([node("n1", ("b", "GPU-1"))], [pod("a", "n1"), pod("b", "n2")]) == [
        "pod a was released without a reservation",
        "pod b is on n2, its reservation on n1",
    ]
