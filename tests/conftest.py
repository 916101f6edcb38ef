"""Simulated GPUs for every test that wants the real nvidia-ml-py to find some, and no deadline for any example."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gpufleet_simgpu.build import build_library
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.simulated import Simulated

# On a busy machine an example of a millisecond takes longer than Hypothesis' deadline of 200 ms; pytest has a timeout.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")


@pytest.fixture(scope="session")
def simulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once, and loaded, so that the loader has it when nvidia-ml-py asks for that name."""
    library = build_library(tmp_path_factory.mktemp("driver"))
    ctypes.CDLL(str(library))
    return library


@pytest.fixture
def simulated(simulated_library: Path) -> Iterator[Simulated]:
    """A node `node` of four idle H100."""
    node = Simulated(simulated_library.parent)
    node.write(make_node("h100", 4))
    yield node
    node.state.unlink(missing_ok=True)
