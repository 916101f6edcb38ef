"""Simulated GPUs for every test that wants the real nvidia-ml-py to find some."""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpufleet_simgpu.build import build_library
from gpufleet_simgpu.files import STATE, edit, write_state
from gpufleet_simgpu.model import SimNode
from gpufleet_simgpu.presets import make_node


@dataclass(frozen=True)
class Simulated:
    """The simulated node that this process's nvidia-ml-py sees."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / STATE

    def write(self, node: SimNode) -> None:
        write_state(self.state, node)

    def edit(self, change: Callable[[SimNode], SimNode]) -> None:
        edit(self.state, change)


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
