"""The annotation that acknowledges faults."""

import pytest

from gpufleet_agent.faults.acknowledgments import read_acknowledgments
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment
from gpufleet_testing.agent.statuses import NOW


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
def test_acknowledgments(text: str, want: list[FaultAcknowledgment]) -> None:
    assert list(read_acknowledgments(text)) == want


def test_an_acknowledgment_is_about_its_device() -> None:
    assert FaultAcknowledgment(1.0).covers("GPU-0")
    assert FaultAcknowledgment(1.0, "GPU-0").covers("GPU-0")
    assert not FaultAcknowledgment(1.0, "GPU-1").covers("GPU-0")
