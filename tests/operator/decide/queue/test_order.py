"""Workloads that wait are placed by priority, use of their namespace, age and name."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.queue.order import QueueOrder
from gpufleet_operator.model.replica import Replica, WaitReason, WorkloadReplicas
from gpufleet_testing.operator import make


def waiting(name: str, *, namespace: str = "ml", priority: int = 0, age: float = 60) -> WorkloadReplicas:
    workload = replace(make.workload(name, created=make.NOW - timedelta(seconds=age)), namespace=namespace)
    pod = make.pod(workload, priority=priority)
    replica = Replica(0, PlacementState.PENDING, WaitReason.DEVICES, pod)
    return WorkloadReplicas(workload, make.spec(workload), (replica,))


def names(order: QueueOrder) -> list[str]:
    return [assessed.workload.name for assessed in order]


def test_priority_comes_before_age_and_age_before_name() -> None:
    found = [waiting("a", age=10), waiting("b", age=99), waiting("c", priority=5, age=1), waiting("d", age=10)]

    assert names(QueueOrder(found)) == ["c", "b", "a", "d"]


def test_head_comes_first_among_those_of_its_priority() -> None:
    found = [waiting("old", age=99), waiting("head"), waiting("urgent", priority=5)]

    assert names(QueueOrder(found, heads={"uid-head"})) == ["urgent", "head", "old"]


def test_namespace_with_the_lowest_use_comes_first() -> None:
    found = [waiting("old", namespace="rich", age=99), waiting("young", namespace="poor")]

    assert names(QueueOrder(found, use=lambda: {"rich": 3.0, "poor": 1.0})) == ["young", "old"]
    assert names(QueueOrder(found)) == ["old", "young"]


def test_devices_picked_in_a_pass_count_for_the_next_pick() -> None:
    found = [waiting(f"{namespace}-{n}", namespace=namespace, age=90 - n) for namespace in "ab" for n in range(3)]
    order = QueueOrder(found, use=lambda: {"a": 1.0})

    placed = []
    for assessed in order:
        placed.append(assessed.workload.name)
        order.picked(assessed.workload.namespace, 1.0)

    assert placed == ["b-0", "a-0", "b-1", "a-1", "b-2", "a-2"]


@pytest.mark.parametrize("namespaces", [("ml", "ml"), ("ml", "other")])
def test_use_is_read_only_if_namespaces_compete(namespaces: tuple[str, str]) -> None:
    calls: list[None] = []

    def use() -> dict[str, float]:
        calls.append(None)
        return {}

    list(QueueOrder([waiting("a", namespace=namespaces[0]), waiting("b", namespace=namespaces[1])], use=use))

    assert len(calls) == (namespaces[0] != namespaces[1])
