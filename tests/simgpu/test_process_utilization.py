"""The real nvidia-ml-py reads the utilization of processes from the simulated library."""

import time

import pynvml
import pytest

from gpufleet_simgpu.model import SimProcess
from gpufleet_testing.simulated import Simulated

pytestmark = pytest.mark.usefixtures("nvml")


def test_utilization_is_of_processes_with_a_newer_sample(simulated: Simulated) -> None:
    listed = (SimProcess(5, 100, sm_percent=70), SimProcess(6, 100, "G"), SimProcess(7, 100, sm_percent=0))
    simulated.edit(lambda node: node.with_gpu(0, processes=listed))
    first, second = map(pynvml.nvmlDeviceGetHandleByIndex, range(2))
    samples = pynvml.nvmlDeviceGetProcessUtilization(first, 0)
    assert [(sample.pid, sample.smUtil) for sample in samples] == [(5, 70), (7, 0)]
    assert all(abs(sample.timeStamp / 1e6 - time.time()) < 60 for sample in samples)
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetProcessUtilization(first, samples[0].timeStamp + 3_600_000_000)
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetProcessUtilization(second, 0)
