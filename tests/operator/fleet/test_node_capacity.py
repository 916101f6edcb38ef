"""Free capacity of a node: allocatable minus the requests of bound and reserved pods."""

from gpufleet_api.names import RESOURCE
from gpufleet_operator.fleet import node_capacity
from gpufleet_operator.ledger import ledger
from gpufleet_operator.model.objects import PodPhase
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_testing.operator import make


def test_bound_released_and_reserved_pods_count_once() -> None:
    needs = PodNeeds(cpu_milli=1000, memory_bytes=2**30, extended={RESOURCE: 1, "example.com/nic": 1})
    running = make.running_pod("a", needs=needs)
    released = make.released_pod("b", needs=needs)
    reserved = make.pod("c", needs=needs)
    elsewhere = make.running_pod("d", on="node-2", needs=needs)
    over = make.running_pod("e", phase=PodPhase.SUCCEEDED, needs=needs)
    telemetry = make.telemetry(
        devices=4, assignments=[make.assignment(p, f"GPU-1-{i}") for i, p in enumerate((running, reserved))]
    )
    node = make.node(allocatable={"cpu": 8000, "memory": 8 * 2**30, "pods": 10, RESOURCE: 4, "example.com/nic": 2})
    others = {"node-1": {"cpu": 500, "memory": 2**30, "pods": 2}}
    pods = (running, released, reserved, elsewhere, over)
    snapshot = make.snapshot(make.workload("c"), *pods, telemetry, node, other_requests=others)

    used = node_capacity.requested_per_node(snapshot, ledger.read_ledger(snapshot, PassState()))
    facts = node_capacity.node_without_devices(node, used["node-1"])

    assert facts.free_cpu_milli == 8000 - 3000 - 500
    assert facts.free_memory_bytes == 4 * 2**30
    assert facts.free_pods == 10 - 3 - 2
    assert facts.free_extended == {RESOURCE: 1, "example.com/nic": -1}
    assert "pods" not in facts.free_extended


def test_unused_node_is_free() -> None:
    assert node_capacity.node_without_devices(make.node(), {}).free_cpu_milli == 16_000
