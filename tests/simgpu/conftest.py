"""nvidia-ml-py, initialised on the simulated node."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pynvml
import pytest

if TYPE_CHECKING:
    from tests.conftest import Simulated


@pytest.fixture
def nvml(simulated: "Simulated") -> Iterator[None]:
    """Initialised before the test, shut down after it."""
    pynvml.nvmlInit()
    yield
    pynvml.nvmlShutdown()
