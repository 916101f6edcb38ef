"""nvidia-ml-py, initialized on the simulated node."""

from collections.abc import Iterator

import pynvml
import pytest

from gpufleet_testing.simulated import Simulated


@pytest.fixture
def nvml(simulated: Simulated) -> Iterator[None]:
    """Initialised before the test, shut down after it."""
    pynvml.nvmlInit()
    yield
    pynvml.nvmlShutdown()
