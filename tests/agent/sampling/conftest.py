"""Fixtures of the sampler's tests."""

import threading
import time
from collections.abc import Iterator

import pytest

from gpufleet_testing.agent.sampling import FakeHardwareWithEvents


@pytest.fixture
def fake() -> Iterator[FakeHardwareWithEvents]:
    """Three devices. What is stuck at the end of the test is released, and its threads have gone."""
    hardware = FakeHardwareWithEvents()
    yield hardware
    for gate in (*hardware.stuck.values(), hardware.open_gate):
        if gate is not None:
            gate.set()
    deadline = time.monotonic() + 10
    for thread in threading.enumerate():
        if thread.name.startswith("gpu-"):
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"{thread.name} was left behind"
