"""Workloads that wait for devices, by their conditions."""

from datetime import timedelta

import pytest

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.report.waiting_workloads import WaitingWorkload, waiting_workloads
from gpufleet_testing.operator import make

SINCE = make.NOW - timedelta(minutes=10)


def condition(kind: str, reason: str, *, true: bool = False) -> Condition:
    status = ConditionStatus.TRUE if true else ConditionStatus.FALSE
    return Condition(type=kind, status=status, reason=reason, last_transition_time=timestamps.seconds(SINCE))


def waiting(*conditions: Condition) -> list[WaitingWorkload]:
    workload = make.workload(status=WorkloadStatus(conditions=list(conditions)))
    return list(waiting_workloads(make.snapshot(workload)))


def test_workload_without_devices_waits_for_the_reason_of_ready() -> None:
    found = waiting(condition("Placed", "Waiting"), condition("Ready", "QuotaExceeded"))
    assert found == [WaitingWorkload("ml", "train", "QuotaExceeded", SINCE)]


def test_workload_that_no_pass_has_seen_waits_since_its_creation() -> None:
    created = make.NOW - timedelta(minutes=3)
    snapshot = make.snapshot(make.workload(created=created))
    assert list(waiting_workloads(snapshot)) == [WaitingWorkload("ml", "train", "Pending", created)]


@pytest.mark.parametrize("ended", ["Complete", "Failed", "Suspended"])
def test_ended_or_suspended_workload_does_not_wait(ended: str) -> None:
    assert waiting(condition("Placed", ended), condition(ended, ended, true=True)) == []


def test_placed_workload_does_not_wait() -> None:
    assert waiting(condition("Placed", "Placed", true=True), condition("Ready", "Confirming")) == []
