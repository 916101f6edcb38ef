"""The object's memory beside the node's file: which of them counts, and what was acknowledged already."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from gpufleet_agent.devices.base import DeviceInfo, Recovery
from gpufleet_agent.faults.restore import FaultRestorer
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.publish.payload import build_status
from gpufleet_agent.sampling.saved_state import Checkpoint, FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthReason, HealthSnapshot, HealthState, NodeSnapshot

NOW = 1_780_000_000.0
INFO = DeviceInfo("GPU-0", 0, "Sim")
WELL = HealthSnapshot(HealthState.HEALTHY)
SICK = HealthSnapshot(HealthState.UNHEALTHY, (HealthReason("XidError", "XID 79", NOW - 60, Recovery.RESET),), NOW - 60)


def file(
    health: HealthSnapshot,
    written: float,
    *,
    reports: tuple[float, ...] = (),
    acknowledgments: Mapping[FaultAcknowledgment, float] = MappingProxyType({}),
) -> Checkpoint:
    last = {"XidError": written - 1} if health is SICK else {}
    past = SavedState(written, "580.1", {"GPU-0": SavedDevice(INFO, health, last)})
    return Checkpoint(past, acknowledgments, frozenset(reports))


def version(health: HealthSnapshot | None, observed: float, acknowledged: str = "") -> TelemetryObject:
    snapshot = NodeSnapshot(devices=(DeviceSnapshot(INFO, health),) if health else (), driver_version="580.1")
    status = build_status(snapshot, {}, generation=1, observed_at=observed, agent_version="1", boot_id="boot-1")
    return TelemetryObject("u", 1, 1, status=status if health else {}, acknowledged=acknowledged)


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


class Agent:
    """Collects what the restorer passes on."""

    def __init__(self, kept: Checkpoint | None = None, now: float = NOW) -> None:
        self.pasts: list[SavedState] = []
        self.acknowledged: list[FaultAcknowledgment] = []
        self.memory = FaultRestorer("boot-1", self.pasts.append, self.acknowledged.append, lambda: None, lambda: now)
        if kept is not None:
            self.memory.add_checkpoint(kept)

    def codes(self) -> list[str]:
        return [reason.code for reason in self.pasts[-1].devices["GPU-0"].health.reasons]

    def ended(self) -> frozenset[str]:
        return self.pasts[-1].cleared.get("GPU-0", frozenset())


def test_a_fault_of_the_file_is_not_handed_over_again() -> None:
    agent = Agent(file(SICK, NOW - 10))
    agent.memory.observe(version(WELL, NOW - 20))
    assert (agent.codes(), agent.ended()) == ([], frozenset())


def test_a_later_status_without_it_withdraws_it_and_with_another_adds_it() -> None:
    agent = Agent(file(SICK, NOW - 20))
    agent.memory.observe(version(WELL, NOW - 10))
    assert (agent.codes(), agent.ended()) == ([], frozenset({"XidError"}))
    agent = Agent(file(WELL, NOW - 20))
    agent.memory.observe(version(SICK, NOW - 10))
    assert agent.codes() == ["XidError"]


def test_older_status_does_not_restore_faults_that_ended_in_the_file() -> None:
    agent = Agent(file(WELL, NOW - 10))
    agent.memory.observe(version(SICK, NOW - 20))
    assert agent.codes() == []
    # The clock was set back by an hour between the two.
    agent = Agent(file(WELL, NOW - 3600, reports=(NOW - 10,)))
    agent.memory.observe(version(SICK, NOW - 10))
    assert agent.codes() == []


def test_without_a_status_the_file_is_enough() -> None:
    agent = Agent(file(SICK, NOW - 20))
    agent.memory.observe(version(None, NOW, at(NOW - 5)))
    assert agent.pasts == []
    assert agent.acknowledged == [FaultAcknowledgment(NOW - 20)], "up to what the file has"


def test_applied_acknowledgment_does_not_clear_later_faults() -> None:
    text = at(NOW + 600)
    first = Agent(now=NOW)
    first.memory.observe(version(WELL, NOW - 10))
    first.memory.observe(TelemetryObject("u", 1, 2, acknowledged=text))
    assert dict(first.memory.acknowledgments) == {FaultAcknowledgment(NOW + 600): NOW}, (
        "its time is in the future, so it applied until now"
    )
    # Ten minutes later its time is past, and a fault has come since.
    second = Agent(file(SICK, NOW + 300, acknowledgments=first.memory.acknowledgments), now=NOW + 700)
    assert second.memory.acknowledgments == first.memory.acknowledgments, "also while the apiserver is away"
    second.memory.observe(version(SICK, NOW + 310, text))
    assert second.acknowledged == [], "the file no longer has what it acknowledged"
    assert second.memory.acknowledgments == first.memory.acknowledgments


def test_applied_acknowledgment_clears_no_later_faults_after_clock_reset() -> None:
    text = at(NOW)
    marks = {FaultAcknowledgment(NOW): NOW}
    agent = Agent(file(SICK, NOW - 36_000, reports=(NOW + 60,), acknowledgments=marks), now=NOW - 35_000)
    agent.memory.observe(version(WELL, NOW + 60, text))
    assert (agent.acknowledged, agent.codes(), agent.ended()) == ([], [], frozenset())
    assert agent.memory.acknowledgments == marks
    # Also where it was off the object in between.
    agent = Agent(file(SICK, NOW - 36_000, acknowledgments=marks), now=NOW - 35_000)
    agent.memory.observe(version(None, NOW))
    agent.memory.observe(TelemetryObject("u", 1, 2, acknowledged=text))
    assert (agent.acknowledged, agent.memory.acknowledgments) == ([], marks)


@pytest.mark.parametrize(("lost", "names"), [(NOW - 60, []), (NOW - 40, ["GPU-0"])], ids=["before it", "after it"])
def test_a_device_that_was_given_up_is_not_brought_back_by_an_older_status(lost: float, names: list[str]) -> None:
    gone = HealthSnapshot(HealthState.UNHEALTHY, (HealthReason("DeviceLost", "gone", lost, Recovery.RESET),), lost)
    kept = Checkpoint(SavedState(NOW - 10, "580.1"), {FaultAcknowledgment(NOW - 50, "GPU-0"): NOW - 50})
    agent = Agent(kept)
    agent.memory.observe(version(gone, NOW - 20, f"GPU-0={at(NOW - 50)}"))
    assert list(agent.pasts[-1].devices) == names
    assert agent.acknowledged == []


def test_a_file_that_comes_late_brings_back_nothing_that_ended_meanwhile() -> None:
    agent = Agent()
    agent.memory.observe(version(WELL, NOW - 10, at(NOW - 11)))
    agent.memory.add_checkpoint(file(SICK, NOW - 20))
    assert (agent.codes(), agent.ended()) == ([], frozenset({"XidError"}))
    assert agent.acknowledged == [FaultAcknowledgment(NOW - 11)] * 2, "also for faults that only the file had"
    agent = Agent()
    agent.memory.observe(version(WELL, NOW - 20, at(NOW - 11)))
    agent.memory.add_checkpoint(file(SICK, NOW - 10, acknowledgments={FaultAcknowledgment(NOW - 11): NOW - 11}))
    assert len(agent.pasts) == 1, "it is newer than the status"
    assert agent.acknowledged == [FaultAcknowledgment(NOW - 20)], "and has what counted"


def test_future_acknowledgment_at_start_never_applies() -> None:
    text = at(NOW + 600)
    first = Agent(now=NOW)
    first.memory.observe(version(WELL, NOW - 10, text))
    second = Agent(file(SICK, NOW + 300, acknowledgments=first.memory.acknowledgments), now=NOW + 700)
    second.memory.observe(version(SICK, NOW + 310, text))
    assert first.acknowledged == second.acknowledged == []


@pytest.mark.parametrize("count", [1, 1000])
def test_only_acknowledgments_of_the_object_are_kept_up_to_a_limit(count: int) -> None:
    agent = Agent()
    agent.memory.observe(version(WELL, NOW, ",".join(at(NOW - 5 - index) for index in range(count))))
    assert len(agent.memory.acknowledgments) == min(count, 256)
    agent.memory.observe(TelemetryObject("u", 1, 2, acknowledged=at(NOW - 1)))
    assert list(agent.memory.acknowledgments) == [FaultAcknowledgment(NOW - 1)]
    agent.memory.observe(TelemetryObject("u", 1, 3))
    assert not agent.memory.acknowledgments
    agent.memory.observe(TelemetryObject("u", 1, 4, acknowledged=at(NOW - 1)))
    assert list(agent.memory.acknowledgments) == [FaultAcknowledgment(NOW - 1)]
    assert len(agent.acknowledged) == count + 1, "each once"
