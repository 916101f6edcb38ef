import pytest

from gpufleet_common.device_use import IDLE_MEMORY_MIB, in_use


@pytest.mark.parametrize(
    ("process_count", "memory_used_mib", "expected"),
    [
        pytest.param(1, 0, True, id="a process"),
        pytest.param(0, 80_000, False, id="no process: memory is the driver's"),
        pytest.param(None, IDLE_MEMORY_MIB, False, id="not counted, idle memory"),
        pytest.param(None, IDLE_MEMORY_MIB + 1, True, id="not counted, memory in use"),
        pytest.param(None, None, True, id="neither is known"),
    ],
)
def test_in_use(process_count: int | None, memory_used_mib: int | None, expected: bool) -> None:
    assert in_use(process_count, memory_used_mib) is expected


@pytest.mark.parametrize(
    ("process_count", "utilization_percent", "expected"),
    [
        pytest.param(1, 0, True, id="a process"),
        pytest.param(0, None, False, id="no process"),
        pytest.param(None, 0, False, id="not counted, idle"),
        pytest.param(None, 1, True, id="not counted, busy"),
        pytest.param(None, None, True, id="nothing is known"),
    ],
)
def test_memory_that_others_use_too_is_no_sign_of_use(
    process_count: int | None, utilization_percent: int | None, expected: bool
) -> None:
    for memory_used_mib in (None, 0, 100_000):
        assert in_use(process_count, memory_used_mib, utilization_percent, own_memory=False) is expected
