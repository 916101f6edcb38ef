from collections.abc import Callable

import pytest

from gpufleet_e2e.proof.assemble import Readings
from gpufleet_testing.evidence import make_readings


@pytest.fixture
def readings() -> Callable[[], Readings]:
    return make_readings
