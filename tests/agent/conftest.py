"""Fixtures of the agent's tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpufleet_agent.podresources import completeness
from gpufleet_testing.agent.kubelet import FakeKubelet


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder with a path short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="gf") as folder:
        yield Path(folder)


@pytest.fixture
def kubelet(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKubelet:
    """A kubelet that is not started yet: `async with kubelet:`. It knows its pods as soon as it is."""
    monkeypatch.setattr(completeness, "SETTLE_SECONDS", 0.0)
    return FakeKubelet(short_path)
