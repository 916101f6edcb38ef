"""Statuses that a full lane would not send wait for their turn."""

from dataclasses import replace
from datetime import datetime

import pytest

from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.incremental.decide_changes import QUEUE_INTERVAL, _due, _first_statuses
from gpufleet_operator.decide.incremental.kept import Kept
from gpufleet_operator.decide.incremental.region_source import WholeSource
from gpufleet_operator.fleet.kept_fleet import KeptFleet
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_testing.operator import make


def test_statuses_of_a_namespace_are_as_many_as_its_lane_has_room_for() -> None:
    workloads = [make.workload(f"w-{number}") for number in range(5)]
    others = [replace(make.workload(f"other-{number}"), namespace="research") for number in range(3)]
    snapshot = make.snapshot(*workloads, *others, limits=Limits(holds_statuses=False))

    found = decide(replace(snapshot, status_room={"ml": 2}), WholeSource(KeptFleet()))

    assert sorted(write.namespace for write in found.statuses) == ["ml"] * 2 + ["research"] * 3
    assert len(found.state.status_queue) == 3


def test_queue_of_a_full_namespace_does_not_delay_others() -> None:
    full = [make.workload(f"w-{number}") for number in range(3)]
    other = replace(make.workload("other"), namespace="research")
    snapshot = replace(make.snapshot(*full, other), status_room={"ml": 1}, status_budget=2)

    found = _first_statuses(snapshot, [*(each.uid for each in full), other.uid])

    assert found == [full[0].uid, other.uid]


def test_deleted_workload_leaves_the_queue() -> None:
    assert _first_statuses(replace(make.snapshot(), status_room={"ml": 0}), ["uid-deleted"]) == ["uid-deleted"]


@pytest.mark.parametrize(("room", "due"), [(0, None), (1, make.NOW + QUEUE_INTERVAL)], ids=["full", "room"])
def test_full_lane_is_not_tried_again_before_a_response(room: int, due: datetime | None) -> None:
    workload = make.workload()
    kept = Kept(PassState(status_queue={workload.uid: make.NOW}))

    assert _due(replace(make.snapshot(workload), status_room={"ml": room}), kept) == due
