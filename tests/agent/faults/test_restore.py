"""What a restarted agent restores from the object that an earlier process wrote to."""

import pytest

from gpufleet_agent.faults.restore import FaultRestorer
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedState
from gpufleet_testing.agent.statuses import NOW, written


def test_the_report_is_handed_over_once_and_so_is_each_acknowledgment() -> None:
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
def test_after_a_restart_an_acknowledgment_is_about_what_was_reported(text: str, want: list[float]) -> None:
    acknowledged: list[FaultAcknowledgment] = []
    memory = FaultRestorer("boot-1", lambda _: None, acknowledged.append, lambda: None, lambda: NOW + 5)
    for version in (1, 2):
        memory.observe(TelemetryObject("u", 1, version, status=written(), acknowledged=text))
    assert [one.until for one in acknowledged] == want
