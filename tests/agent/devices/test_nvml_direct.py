"""Calls without pynvml's wrappers return what pynvml returns."""

from functools import partial
from types import SimpleNamespace

import pynvml
import pytest

from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.devices.nvml_direct import FieldReader, wait_for_event
from gpufleet_simgpu.model import SimNode
from gpufleet_testing.simulated import Simulated

NUMBERS = (pynvml.NVML_FI_DEV_MEMORY_TEMP, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)


def _heat(node: SimNode, *, index: int, celsius: int) -> SimNode:
    return node.with_gpu(index, memory_temperature_celsius=celsius)


def test_fields_are_those_of_pynvml_in_each_call(simulated: Simulated, hardware: NvmlHardware) -> None:
    del hardware  # open
    read = FieldReader(NUMBERS)
    for index, celsius in ((0, 50), (1, 60), (0, 70)):
        simulated.edit(partial(_heat, index=index, celsius=celsius))
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        found = [(value.fieldId, value.nvmlReturn, value.value.uiVal) for value in read(handle)]
        wanted = pynvml.nvmlDeviceGetFieldValues(handle, NUMBERS)
        assert found[0] == (NUMBERS[0], pynvml.NVML_SUCCESS, celsius)
        assert found == [(value.fieldId, value.nvmlReturn, value.value.uiVal) for value in wanted]


def test_error_is_raised_as_pynvml_does(simulated: Simulated, hardware: NvmlHardware) -> None:
    del hardware
    simulated.edit(lambda node: node.lose(0))
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        FieldReader(NUMBERS)(pynvml.nvmlDeviceGetHandleByIndex(0))


def test_wait_without_an_event_returns_none(hardware: NvmlHardware) -> None:
    del hardware
    events = pynvml.nvmlEventSetCreate()
    assert wait_for_event(events, 1) is None
    pynvml.nvmlEventSetFree(events)


@pytest.mark.parametrize(
    ("library", "error"),
    [(SimpleNamespace(), pynvml.NVMLError_FunctionNotFound), (None, pynvml.NVMLError_Uninitialized)],
)
def test_function_that_is_missing_is_an_error_of_nvml(
    monkeypatch: pytest.MonkeyPatch, library: object, error: type[Exception]
) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    with pytest.raises(error):
        FieldReader(NUMBERS)(None)
    with pytest.raises(error):
        wait_for_event(None, 1)
