"""MIG devices of our library, asked by the real nvidia-ml-py."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml
import pytest

from gpufleet_simgpu.model import SimMig, SimProcess
from gpufleet_testing.simulated import Simulated

pytestmark = pytest.mark.usefixtures("nvml")

SMALL = SimMig("MIG-small", "1g.10gb", 7, 9984, 13)
BIG = SimMig("MIG-big", "3g.40gb", 2, 40448, 20000, 1)


@pytest.fixture
def divided(simulated: Simulated) -> Any:
    """GPU 1, divided into two."""
    simulated.edit(
        lambda node: node.with_gpu(
            1, mig_mode=1, migs=(SMALL, BIG), processes=(SimProcess(7, 5, gpu_instance=2), SimProcess(8, 9))
        )
    )
    return pynvml.nvmlDeviceGetHandleByIndex(1)


@contextmanager
def answers(code: int) -> Iterator[None]:
    with pytest.raises(pynvml.NVMLError) as raised:
        yield
    assert raised.value.value == code


def test_mig_devices_are_found_by_index_and_lead_to_their_gpu(divided: object) -> None:
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(divided) == 7
    small, big = (pynvml.nvmlDeviceGetMigDeviceHandleByIndex(divided, place) for place in range(2))
    with answers(pynvml.NVML_ERROR_NOT_FOUND):
        pynvml.nvmlDeviceGetMigDeviceHandleByIndex(divided, 2)
    assert [pynvml.nvmlDeviceGetUUID(one) for one in (small, big)] == ["MIG-small", "MIG-big"]
    assert pynvml.nvmlDeviceGetName(big) == "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
    assert [pynvml.nvmlDeviceGetGpuInstanceId(one) for one in (small, big)] == [7, 2]
    assert [pynvml.nvmlDeviceGetComputeInstanceId(one) for one in (small, big)] == [0, 1]
    assert pynvml.nvmlDeviceIsMigDeviceHandle(big).value == 1
    assert pynvml.nvmlDeviceIsMigDeviceHandle(divided).value == 0
    parent = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(big)
    assert pynvml.nvmlDeviceGetIndex(parent) == 1


def test_mig_device_has_memory_and_processes_but_no_temperature(divided: object) -> None:
    big = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(divided, 1)
    memory = pynvml.nvmlDeviceGetMemoryInfo(big, version=pynvml.nvmlMemory_v2)
    assert (memory.total >> 20, memory.used >> 20) == (40448, 20000)
    assert [one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses_v3(big)] == [7]
    of_all = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(divided)
    assert [(one.pid, one.gpuInstanceId) for one in of_all] == [(7, 2), (8, 2**32 - 1)]
    for call in (pynvml.nvmlDeviceGetUtilizationRates, pynvml.nvmlDeviceGetPowerUsage, pynvml.nvmlDeviceGetPciInfo):
        with answers(pynvml.NVML_ERROR_NOT_SUPPORTED):
            call(big)


def test_divided_gpu_has_no_remapped_rows_and_no_utilization(simulated: Simulated, divided: object) -> None:
    calls = (
        pynvml.nvmlDeviceGetRemappedRows,
        pynvml.nvmlDeviceGetUtilizationRates,
        pynvml.nvmlDeviceGetEncoderUtilization,
        pynvml.nvmlDeviceGetDecoderUtilization,
    )
    for call in calls:
        with answers(pynvml.NVML_ERROR_NOT_SUPPORTED):
            call(divided)
    simulated.edit(lambda node: node.with_gpu(1, migs=()))
    for call in calls:
        call(divided)


def test_destroyed_mig_device_and_one_of_a_lost_gpu_fail(simulated: Simulated, divided: object) -> None:
    small, big = (pynvml.nvmlDeviceGetMigDeviceHandleByIndex(divided, place) for place in range(2))
    simulated.edit(lambda node: node.with_gpu(1, migs=(SMALL,)))
    assert pynvml.nvmlDeviceGetUUID(small) == "MIG-small"
    with answers(pynvml.NVML_ERROR_NOT_FOUND):
        pynvml.nvmlDeviceGetUUID(big)
    simulated.edit(lambda node: node.lose(1))
    with answers(pynvml.NVML_ERROR_GPU_IS_LOST):
        pynvml.nvmlDeviceGetUUID(small)


def test_xid_contains_its_instances(simulated: Simulated, divided: object) -> None:
    events = pynvml.nvmlEventSetCreate()
    pynvml.nvmlDeviceRegisterEvents(divided, pynvml.nvmlEventTypeXidCriticalError, events)
    simulated.edit(lambda node: node.with_xid(1, 48, (2, 1)).with_xid(1, 79))
    seen = [pynvml.nvmlEventSetWait_v2(events, 1000) for _ in range(2)]
    assert [(one.eventData, one.gpuInstanceId, one.computeInstanceId) for one in seen] == [
        (48, 2, 1),
        (79, 2**32 - 1, 2**32 - 1),
    ]
    pynvml.nvmlEventSetFree(events)


def test_gpu_without_mig_reports_not_supported(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_gpu(0, mig_mode=None))
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(pynvml.nvmlDeviceGetHandleByIndex(0)) == 0
