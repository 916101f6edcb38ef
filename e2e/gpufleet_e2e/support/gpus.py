"""The simulated GPUs of one node; their readings can change while everything runs."""

from dataclasses import replace

from gpufleet_simgpu.build import build_library
from gpufleet_simgpu.clients import open_clients
from gpufleet_simgpu.files import STATE, edit, read_state, write_state
from gpufleet_simgpu.model import SimNode
from gpufleet_simgpu.presets import make_node
from gpufleet_testbed import Node


class Gpus:
    """One node's GPUs, all idle and cool at first."""

    def __init__(self, node: Node, count: int, model: str = "h100") -> None:
        self._path = node.driver_dir / STATE
        self._idle = make_node(model, count, node=node.name)
        # The state first: an agent that finds the library without it would report that no driver is loaded.
        write_state(self._path, self._idle)
        build_library(node.driver_dir)
        self.uuids = tuple(gpu.uuid for gpu in self._idle.gpus)
        """In order of their index."""

    def report(self, uuid: str, **fields: object) -> None:
        """Changes readings of one GPU, such as `temperature_celsius=95`."""
        edit(self._path, lambda state: state.with_gpu(self._index(uuid), **fields))

    def xid(self, uuid: str, code: int) -> None:
        """Makes one GPU report an XID, once."""
        edit(self._path, lambda state: state.with_xid(self._index(uuid), code))

    def lose(self, uuid: str) -> None:
        """Makes one GPU fall off the bus."""
        edit(self._path, lambda state: state.lose(self._index(uuid)))

    def restore(self, uuid: str) -> None:
        """Makes a lost GPU answer again."""
        edit(self._path, lambda state: state.restore(self._index(uuid)))

    def driver(self, *, error: int = 0, version: str | None = None) -> None:
        """Makes every call fail with an NVML code, or changes the driver's version."""
        edit(self._path, lambda state: replace(state, error=error, driver=version or state.driver))

    def clients(self) -> tuple[int, ...]:
        """Returns the processes that have the driver open, by their PIDs on this machine."""
        return open_clients(self._path.parent)

    def total(self, field: str) -> int:
        """Returns the sum of a reading of all GPUs, as the driver reports it."""
        return sum(getattr(gpu, field) for gpu in read_state(self._path).gpus)

    def reset(self) -> bool:
        """Makes all GPUs idle, cool and healthy; returns whether anything changed."""
        if read_state(self._path) == self._idle:
            return False
        edit(self._path, self._initial)
        return True

    def _initial(self, state: SimNode) -> SimNode:
        return self._idle

    def _index(self, uuid: str) -> int:
        return self.uuids.index(uuid)
