"""What the tests of the hardware share."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pynvml
import pytest

from gpufleet_agent.devices.nvml import NvmlHardware

if TYPE_CHECKING:
    from tests.conftest import Simulated


@pytest.fixture
def hardware(simulated: "Simulated") -> Iterator[NvmlHardware]:
    """Opened and listed."""
    opened = NvmlHardware()
    opened.open()
    for slot in range(opened.slots()):
        opened.identify(slot)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def closed_for_good() -> Callable[[], bool]:
    """Whether nobody has NVML open any more."""

    def asked() -> bool:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError_Uninitialized:
            return True
        return False

    return asked
