"""What the tests of the hardware share."""

from collections.abc import Callable

import pynvml
import pytest


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
