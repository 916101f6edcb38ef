"""What a restarted agent learns from the object that the process before it wrote to."""

from pathlib import Path
from typing import Any

import pytest

from gpufleet_agent.devices.base import DeviceInfo, Recovery, Sample
from gpufleet_agent.faults.acknowledgments import read_acknowledgments
from gpufleet_agent.faults.boot_id import read_boot_id
from gpufleet_agent.faults.restore import FaultRestorer
from gpufleet_agent.faults.status import read_status
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.publish.payload import build_status
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthReason, HealthSnapshot, HealthState, NodeSnapshot

NOW = 1_780_000_000.25
INFO = DeviceInfo("GPU-0", 0, "NVIDIA H100", "Hopper", "9.0", "0000:1B:00.0", 1, ("GPU-1",), 80_000)
SICK = HealthSnapshot(
    HealthState.UNHEALTHY,
    (
        HealthReason("DeviceLost", "gone", NOW - 50, Recovery.RESET),
        HealthReason("XidError", "XID 79: gone", NOW - 60, Recovery.RESET),
    ),
    NOW - 60,
    (HealthReason("RowRemapPending", "later", NOW - 30, Recovery.RESET, fault=False),),
)


def written(**fields: Any) -> dict[str, Any]:
    """The status of a node with one device, as the agent writes it."""
    device = DeviceSnapshot(INFO, SICK, Sample(uuid="GPU-0", taken_at=NOW, utilization_percent=1), 1.0)
    snapshot = NodeSnapshot(devices=(device,), driver_version="580.1", sample_age_seconds=1.0)
    usual: dict[str, Any] = {"generation": 1, "observed_at": NOW, "agent_version": "1", "boot_id": "boot-1"}
    return build_status(snapshot, {}, **{**usual, **fields})


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
def test_a_device_that_can_not_be_read_is_left_out(broken: Any) -> None:
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


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", []),
        ("2026-05-28T20:26:40.250000Z", [FaultAcknowledgment(NOW)]),
        ("GPU-0=2026-05-28T20:26:40.25Z", [FaultAcknowledgment(NOW, "GPU-0")]),
        (
            " GPU-0=2026-05-28T20:26:40.25Z , 2026-05-28T22:26:40.25+02:00,",
            [FaultAcknowledgment(NOW, "GPU-0"), FaultAcknowledgment(NOW)],
        ),
        ("now, GPU-0=, 2026-05-28T20:26:40.25", []),
    ],
)
def test_acknowledgements(text: str, want: list[FaultAcknowledgment]) -> None:
    assert list(read_acknowledgments(text)) == want


def test_an_acknowledgement_is_about_its_device() -> None:
    assert FaultAcknowledgment(1.0).covers("GPU-0")
    assert FaultAcknowledgment(1.0, "GPU-0").covers("GPU-0")
    assert not FaultAcknowledgment(1.0, "GPU-1").covers("GPU-0")


def test_the_report_is_handed_over_once_and_so_is_each_acknowledgement() -> None:
    pasts: list[SavedState] = []
    acknowledged: list[FaultAcknowledgment] = []
    memory = FaultRestorer("boot-1", pasts.append, acknowledged.append, lambda: None, lambda: NOW + 5)
    text = "2026-05-28T20:26:40.25Z"
    for version in (1, 2, 3):
        memory.observe(TelemetryObject("u", 1, version, status=written(), acknowledged=text))
    assert len(pasts) == 1
    assert acknowledged == [FaultAcknowledgment(NOW)]
    memory.observe(TelemetryObject("u", 1, 4, status=written(), acknowledged=f"GPU-0=2026-05-28T20:26:50Z,{text}"))
    assert acknowledged[1:] == [FaultAcknowledgment(NOW + 9.75, "GPU-0")], "the new one alone"
    # What the first version lacks, a later one can only have from this process.
    fresh = FaultRestorer("boot-1", pasts.append, acknowledged.append, lambda: None)
    fresh.observe(TelemetryObject("u", 1, 1))
    fresh.observe(TelemetryObject("u", 1, 2, status=written()))
    assert len(pasts) == 1


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2026-05-28T20:26:39.25Z", [NOW - 1]),
        ("2026-05-28T20:26:42.25Z", [NOW]),
        ("2026-05-28T20:26:50.25Z", []),
    ],
    ids=["before the report", "since the report", "still to come"],
)
def test_after_a_restart_an_acknowledgement_is_about_what_was_reported(text: str, want: list[float]) -> None:
    acknowledged: list[FaultAcknowledgment] = []
    memory = FaultRestorer("boot-1", lambda _: None, acknowledged.append, lambda: None, lambda: NOW + 5)
    for version in (1, 2):
        memory.observe(TelemetryObject("u", 1, version, status=written(), acknowledged=text))
    assert [one.until for one in acknowledged] == want


def test_the_boot_is_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("0b5c7a8e-0a6f\n", encoding="ascii")
    assert read_boot_id(tmp_path / "boot_id") == "0b5c7a8e-0a6f"
    assert read_boot_id(tmp_path / "none") is None
