"""Evictions of pods that are moved from full devices."""

import pytest

from gpufleet_api.base import MovedFrom
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.pressure import evictions
from gpufleet_operator.decide.pressure.evictions import collect_moves
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.ledger.move_target import move_target, origin_of
from gpufleet_operator.model.objects import Reservation
from gpufleet_testing.operator import make


def test_exception_about_one_moved_pod_evicts_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("poison", "good")
    workloads = [make.workload(name, placement={"onPressure": "Move"}) for name in names]
    pods = [make.released_pod(name) for name in names]
    targets = [
        move_target(
            make.assignment(pod, f"GPU-2-{index}", workload=names[index], memory_mib=10),
            MovedFrom(pod_uid=pod.uid, node="node-1", device="GPU-1-0", message="full"),
            10,
        )
        for index, pod in enumerate(pods)
    ]
    snapshot = make.snapshot(*workloads, *pods, make.telemetry("node-1"), make.telemetry("node-2", assignments=targets))

    def failing(assignment: Assignment) -> MovedFrom | None:
        if assignment is targets[0]:
            raise KeyError("surprise")
        return origin_of(assignment)

    monkeypatch.setattr(evictions, "origin_of", failing)
    guard = WorkloadGuard()
    kept = tuple(Reservation("node-2", target) for target in targets)
    found = list(collect_moves(snapshot, Ledger(kept=kept), guard))

    assert [(one.workload, one.uid) for one in found] == [("good", pods[1].uid)]
    assert list(guard.errors) == [workloads[0].uid]
