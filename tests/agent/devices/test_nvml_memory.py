"""Memory of GPUs that have none of their own, or whose memory the operating system manages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpufleet_agent.devices import node_memory
from gpufleet_agent.devices.base import DeviceInfo, MemoryModel
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.sampling.validate import validate
from gpufleet_simgpu.model import SimMig
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.simulated import Simulated

UUID = make_node("h100", 4).gpus[0].uuid
MEMINFO = """MemTotal:       131072000 kB
MemFree:         4096000 kB
MemAvailable:  102400000 kB
HugePages_Total:       0
"""


@contextmanager
def opened(*, partitions: bool = False) -> Iterator[tuple[NvmlHardware, DeviceInfo]]:
    hardware = NvmlHardware(partitions=partitions)
    hardware.open()
    try:
        hardware.device_count()
        hardware.identify(0)
        yield hardware, hardware.devices()[0]
    finally:
        hardware.close()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 128000 MiB, of which 28000 are used."""
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO, encoding="ascii")
    monkeypatch.setattr(node_memory, "MEMINFO", path)
    return path


@pytest.mark.parametrize("total", [None, 0])
def test_gpu_without_memory_figures_has_the_machines_memory(
    simulated: Simulated,
    machine: Path,
    total: int | None,
) -> None:
    """GB10 answers Not Supported, Jetson with zeros."""
    simulated.edit(lambda node: node.with_gpu(0, memory_total_mib=total, memory_used_mib=total))
    with opened() as (hardware, info):
        assert (info.memory_model, info.memory_total_mib) == (MemoryModel.UNIFIED, 128_000)
        reading = hardware.read(UUID)
    assert (reading.memory_total_mib, reading.memory_used_mib, reading.memory_reserved_mib) == (128_000, 28_000, None)
    assert validate(reading, registered={UUID}, taken_at=1.0).memory_used_mib == 28_000


def test_unified_memory_is_unknown_where_the_machine_does_not_say(simulated: Simulated, machine: Path) -> None:
    machine.write_text("MemTotal: lots\n", encoding="ascii")
    simulated.edit(lambda node: node.with_gpu(0, memory_total_mib=None))
    with opened() as (hardware, info):
        assert (info.memory_model, info.memory_total_mib) == (MemoryModel.UNIFIED, None)
        assert hardware.read(UUID).memory_total_mib is None
        machine.unlink()
        assert hardware.read(UUID).memory_used_mib is None


def test_memory_without_permission_is_not_unified(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_fail(0, "memory_used_mib", 4))
    with opened() as (hardware, info):
        assert (info.memory_model, info.memory_total_mib) == (None, None)
        assert hardware.read(UUID).memory_total_mib is None


def test_memory_that_is_a_numa_node_is_marked(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_gpu(0, memory_numa_node=4, memory_used_mib=70_000))
    with opened() as (hardware, info):
        assert (info.memory_model, info.memory_total_mib) == (MemoryModel.NUMA, 81559)
        assert hardware.read(UUID).memory_used_mib == 70_000


def test_memory_of_a_usual_gpu_is_its_own(simulated: Simulated) -> None:
    with opened() as (hardware, info):
        assert info.memory_model is None
        assert hardware.read(UUID).memory_reserved_mib == 479
    simulated.edit(lambda node: node.with_gpu(0, mig_mode=1, migs=(SimMig("MIG-a", "1g.10gb", 1, 9984, 13),)))
    with opened(partitions=True) as (_, info):
        assert (info.uuid, info.memory_model) == ("MIG-a", None)
