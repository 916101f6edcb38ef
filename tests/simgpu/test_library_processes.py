"""Lists of processes as other drivers write them."""

from typing import Any

import pynvml
import pytest

from gpufleet_simgpu.model import SimProcess
from gpufleet_testing.simulated import Simulated

pytestmark = pytest.mark.usefixtures("nvml")


def gpu() -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(0)


@pytest.mark.parametrize(("size", "whole"), [(16, False), (24, True), (32, False)])
def test_process_entries_have_the_size_of_other_drivers(simulated: Simulated, size: int, whole: bool) -> None:
    processes = (SimProcess(4711, 5000), SimProcess(4712, 7000))
    simulated.edit(lambda node: node.with_gpu(0, process_bytes=size, processes=processes))
    found = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(gpu())
    assert len(found) == 2
    assert ([one.pid for one in found] == [4711, 4712]) is whole


def test_pid_above_int32_is_accepted(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_gpu(0, processes=(SimProcess(0, 1), SimProcess(3_145_728_000, 1))))
    assert [one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses_v3(gpu())] == [0, 3_145_728_000]
