"""Processes of a device, and how much of it they use."""

import pynvml
import pytest

from gpufleet_agent.devices.base import ProcessUtilization
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_simgpu.model import SimProcess
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.simulated import Simulated

UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


def test_utilization_of_processes_is_read_since_the_last_time(simulated: Simulated, hardware: NvmlHardware) -> None:
    running = (SimProcess(7, 1, sm_percent=60), SimProcess(8, 1, "G", sm_percent=5), SimProcess(9, 1))
    simulated.edit(lambda node: node.with_gpu(0, processes=running))
    assert hardware.read_slow(UUIDS[0]).process_utilization == (ProcessUtilization(7, 60), ProcessUtilization(8, 5))
    assert hardware.read_slow(UUIDS[1]).process_utilization == ()
    simulated.edit(lambda node: node.with_fail(0, "process_utilization", pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert hardware.read_slow(UUIDS[0]).process_utilization is None


def test_processes_in_own_pid_namespace_are_unknown(
    simulated: Simulated, hardware: NvmlHardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated.edit(lambda node: node.with_gpu(0, processes=(SimProcess(7, 1),)))
    monkeypatch.setattr("os.getpid", lambda: 1)
    slow = hardware.read_slow(UUIDS[0])
    assert (slow.process_count, slow.processes, slow.process_utilization) == (None, None, None)
