"""Installs the simulated drivers of the nodes, and changes the readings of their GPUs."""

import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gpufleet_e2e.demo.nodes import GpuLoad, NodeProfile
from gpufleet_simgpu.build import build_library
from gpufleet_simgpu.files import STATE, edit, read_state, write_state
from gpufleet_simgpu.model import SimGpu, SimNode
from gpufleet_simgpu.presets import make_node


class SimulatedDriver:
    """The driver folders of all nodes."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)

    @classmethod
    def install(cls, folders: Mapping[str, Path], profiles: Mapping[str, NodeProfile]) -> "SimulatedDriver":
        """Builds the simulated libnvidia-ml.so.1 into each folder, with the state file of the node's GPUs.

        Raises:
            CompilerError: The C compiler is missing or failed.
        """
        with tempfile.TemporaryDirectory() as scratch:
            library = build_library(Path(scratch))
            for node, folder in folders.items():
                # The state first: an agent that finds the library without it would report that no driver is loaded.
                write_state(folder / STATE, simulated(node, profiles[node]))
                _replace(library, folder)
        return cls(folders)

    def temperature(self, node: str, uuid: str) -> int:
        """Reads the GPU's temperature in degrees Celsius; 0 when it reports none."""
        state = read_state(self._folders[node] / STATE)
        return state.gpus[_index(state, uuid)].temperature_celsius or 0

    def set_temperature(self, node: str, uuid: str, celsius: int) -> None:
        """Makes one GPU report this temperature."""
        edit(
            self._folders[node] / STATE,
            lambda state: state.with_gpu(_index(state, uuid), temperature_celsius=celsius),
        )

    def command(self, node: str, uuid: str, celsius: int) -> str:
        """Returns the command that does the same."""
        folder = self._folders[node]
        index = _index(read_state(folder / STATE), uuid)
        return f"{python()} -m gpufleet_simgpu set {folder} {index} temperature_celsius={celsius}"


def simulated(node: str, profile: NodeProfile) -> SimNode:
    """Builds the simulated node of a profile: GPUs of its model, each with its own load."""
    made = make_node(profile.preset, len(profile.loads), node=node)
    return replace(made, gpus=tuple(_loaded(gpu, load) for gpu, load in zip(made.gpus, profile.loads, strict=True)))


def python(executable: str = sys.executable) -> str:
    """Returns the running interpreter, relative to the working directory if it is below it."""
    path = Path(executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else executable


def _replace(library: Path, folder: Path) -> None:
    """Replaces the library atomically: an agent that has an older one open keeps it."""
    scratch = folder / f".{library.name}"
    shutil.copy(library, scratch)
    scratch.replace(folder / library.name)


def _loaded(gpu: SimGpu, load: GpuLoad) -> SimGpu:
    return replace(
        gpu,
        memory_used_mib=load.memory_used_mib,
        utilization_percent=load.utilization_percent,
        temperature_celsius=load.temperature_celsius,
        power_milliwatts=load.power_watts * 1000,
    )


def _index(state: SimNode, uuid: str) -> int:
    for index, gpu in enumerate(state.gpus):
        if gpu.uuid == uuid:
            return index
    raise ValueError(f"no simulated GPU {uuid}")
