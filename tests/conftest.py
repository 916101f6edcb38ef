"""Simulated GPUs for every test that wants the real nvidia-ml-py to find some, and no deadline for any example."""

import ctypes
import fcntl
import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gpufleet_simgpu.build import LIBRARY, build_library
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.hypothesis_profiles import RANDOM
from gpufleet_testing.simulated import Simulated

# On a busy machine an example of a millisecond takes longer than Hypothesis' deadline of 200 ms; pytest has a timeout.
settings.register_profile("random", deadline=None)
# A change is accepted or rejected by what it does, not by the examples that were drawn for it that time.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("random" if RANDOM else "repeatable")

_GARBAGE = 50_000
"""New objects until the collector looks for cycles; a decision on a cluster in memory makes thousands."""


# Until the first test, there are more and more modules and tests, and hardly any garbage.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Leaves what exists by now out of every later garbage collection."""
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    gc.enable()


@pytest.fixture(scope="session")
def simulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once for all workers, and loaded, so that the loader has it when nvidia-ml-py asks for that name."""
    folder, base = tmp_path_factory.mktemp("driver"), tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (common / "driver.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = common / "built-driver" / LIBRARY
        if not built.exists():
            build_library(built.parent)
    library = shutil.copytree(built.parent, folder, dirs_exist_ok=True) / LIBRARY
    ctypes.CDLL(str(library))
    return library


@pytest.fixture
def simulated(simulated_library: Path) -> Iterator[Simulated]:
    """A node `node` of four idle H100."""
    node = Simulated(simulated_library.parent)
    node.write(make_node("h100", 4))
    yield node
    node.state.unlink(missing_ok=True)
