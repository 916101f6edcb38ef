import pytest

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.plugin.foreign_processes import in_use
from gpufleet_common.device_use import IDLE_MEMORY_MIB


@pytest.mark.parametrize(
    ("processes", "memory_mib", "expected"),
    [
        pytest.param(0, 3, False, id="none"),
        pytest.param(2, 3, True, id="some"),
        pytest.param(0, 70_000, False, id="none, and what is in use is the driver's"),
        pytest.param(None, 70_000, True, id="not counted, and memory is in use"),
        pytest.param(None, IDLE_MEMORY_MIB, False, id="not counted, and memory is back to idle"),
        pytest.param(None, None, True, id="nothing is known"),
    ],
)
def test_a_device_is_in_use(processes: int | None, memory_mib: int | None, *, expected: bool) -> None:
    sample = Sample(uuid="GPU-0", taken_at=1.0, memory_used_mib=memory_mib, process_count=processes)
    assert in_use(sample) is expected


def test_a_device_that_was_never_read_counts_as_used() -> None:
    assert in_use(None)
