"""Fixtures of the hardware's tests."""

from collections.abc import Iterator

import pytest

from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_testing.agent.nvml import FailCall, call_failer
from gpufleet_testing.simulated import Simulated


@pytest.fixture
def hardware(simulated: Simulated) -> Iterator[NvmlHardware]:
    """Opened and listed."""
    opened = NvmlHardware()
    opened.open()
    for slot in range(opened.device_count()):
        opened.identify(slot)
    yield opened
    opened.close()


@pytest.fixture
def fail_call(monkeypatch: pytest.MonkeyPatch) -> FailCall:
    return call_failer(monkeypatch)
