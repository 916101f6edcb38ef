from collections.abc import Callable
from pathlib import Path

import pytest

from gpufleet_testing.testbed import FakeRunner, FakeSystem, RecordedProgress


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def system() -> FakeSystem:
    return FakeSystem()


@pytest.fixture
def progress() -> RecordedProgress:
    return RecordedProgress()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes an executable shell script."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write
