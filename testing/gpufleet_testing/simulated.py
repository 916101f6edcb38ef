"""The simulated GPUs of a test, as files that the simulated NVML library reads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpufleet_simgpu.files import STATE, edit, write_state
from gpufleet_simgpu.model import SimNode


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
