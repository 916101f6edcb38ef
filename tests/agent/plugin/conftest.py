"""Fixtures of the plugin's tests."""

from collections.abc import Iterator

import pytest

from gpufleet_agent.plugin import allocator
from gpufleet_agent.plugin.inject.cdi import CdiFile
from gpufleet_testing.agent.plugins import Disk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """What all CDI files of the test are written to."""
    disk, write = Disk(), CdiFile.write
    monkeypatch.setattr(CdiFile, "write", lambda self, devices: disk.write(lambda: write(self, devices)))
    yield disk
    disk.go_on()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allocations wait half a second for the reservations, for tests in which the apiserver stays away."""
    monkeypatch.setattr(allocator, "READ_PATIENCE_SECONDS", 0.5)
