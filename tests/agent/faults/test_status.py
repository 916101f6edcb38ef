"""What is read back from the status that an earlier process wrote."""

from typing import Any

import pytest

from gpufleet_agent.devices.base import Recovery
from gpufleet_agent.faults.status import read_status
from gpufleet_agent.sampling.saved_state import SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState
from gpufleet_testing.agent.statuses import INFO, NOW, SICK, written


def test_what_was_written_is_read_again() -> None:
    assert read_status(written(), "boot-1") == SavedState(NOW, "580.1", {"GPU-0": SavedDevice(INFO, SICK)})


@pytest.mark.parametrize("boot_id", ["boot-1", None])
def test_status_of_this_or_an_unknown_boot_is_used(boot_id: str | None) -> None:
    assert read_status(written(), boot_id) is not None
    assert read_status(written(boot_id=None), boot_id) is not None


def test_after_a_reboot_nothing_is_remembered() -> None:
    assert read_status(written(), "boot-2") is None


@pytest.mark.parametrize("status", [{}, {"observedAt": "yesterday"}, {"observedAt": None}, {"observedAt": 5}])
def test_without_a_report_there_is_no_past(status: dict[str, Any]) -> None:
    assert read_status(status, "boot-1") is None


@pytest.mark.parametrize(
    "broken",
    [
        {"uuid": "GPU-9"},
        {"uuid": "GPU-9", "index": "first", "model": "M", "health": {"state": "Healthy"}},
        {"uuid": "GPU-9", "index": 1, "model": "M", "health": {"state": "Odd"}},
        {"uuid": "GPU-9", "index": 1, "model": "M", "health": {"state": "Unhealthy", "reasons": [{"message": "?"}]}},
        "GPU-9",
    ],
)
def test_a_device_that_can_not_be_read_is_left_out(broken: object) -> None:
    status = written()
    status["devices"].append(broken)
    past = read_status(status, "boot-1")
    assert past is not None
    assert set(past.devices) == {"GPU-0"}


def test_reason_without_details_gets_defaults() -> None:
    status = written()
    status["devices"][0]["health"] = {"state": "Unhealthy", "reasons": [{"code": "XidError"}]}
    past = read_status(status, "boot-1")
    assert past is not None
    assert past.devices["GPU-0"].health.reasons == (HealthReason("XidError", "", NOW, Recovery.AUTOMATIC),)


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "1969-12-31T23:59:59Z"])
def test_a_time_that_can_not_be_written_again_is_that_of_the_report(since: str) -> None:
    status = written()
    reason = {"code": "XidError", "message": "gone", "since": since, "recovery": "Reset"}
    status["devices"][0]["health"] = {"state": "Unhealthy", "since": since, "reasons": [reason]}
    past = read_status(status, "boot-1")
    assert past is not None
    assert past.devices["GPU-0"].health == HealthSnapshot(
        HealthState.UNHEALTHY, (HealthReason("XidError", "gone", NOW, Recovery.RESET),), None
    )
