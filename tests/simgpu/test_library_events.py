"""XIDs through the real nvidia-ml-py's event sets."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml
import pytest

from gpufleet_simgpu.presets import make_node
from gpufleet_testing.simulated import Simulated

pytestmark = pytest.mark.usefixtures("nvml")


def gpu(index: int = 0) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


@contextmanager
def answers(code: int) -> Iterator[None]:
    with pytest.raises(pynvml.NVMLError) as raised:
        yield
    assert raised.value.value == code


def wait_for_xid(event_set: object, milliseconds: int = 2000) -> tuple[int, int]:
    data = pynvml.nvmlEventSetWait_v2(event_set, milliseconds)
    assert data.eventType == pynvml.nvmlEventTypeXidCriticalError
    return pynvml.nvmlDeviceGetIndex(data.device), data.eventData


def listen(*indices: int) -> Any:
    event_set = pynvml.nvmlEventSetCreate()
    for index in indices:
        pynvml.nvmlDeviceRegisterEvents(gpu(index), pynvml.nvmlEventTypeXidCriticalError, event_set)
    return event_set


def test_event_set_gets_each_xid_of_its_devices_once(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_xid(0, 13))
    both, one = listen(0, 1), listen(1)
    simulated.edit(lambda node: node.with_xid(0, 48).with_xid(1, 79))
    assert wait_for_xid(both) == (0, 48), "earlier events are not reported"
    assert wait_for_xid(both) == (1, 79)
    assert wait_for_xid(one) == (1, 79)
    for event_set in (both, one):
        with answers(pynvml.NVML_ERROR_TIMEOUT):
            wait_for_xid(event_set, 30)
        pynvml.nvmlEventSetFree(event_set)


def test_an_xid_wakes_a_waiting_thread(simulated: Simulated) -> None:
    event_set = listen(0)
    got: list[tuple[int, int]] = []
    waiting = threading.Thread(target=lambda: got.append(wait_for_xid(event_set, 10_000)))
    waiting.start()
    simulated.edit(lambda node: node.with_xid(0, 79))
    waiting.join(5)
    assert got == [(0, 79)]
    pynvml.nvmlEventSetFree(event_set)


def test_new_state_file_reports_its_xids(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_xid(0, 1).with_xid(0, 2))
    event_set = listen(0)
    simulated.write(make_node("h100", 4))
    with answers(pynvml.NVML_ERROR_TIMEOUT):
        wait_for_xid(event_set, 20)
    simulated.edit(lambda node: node.with_xid(0, 79))
    assert wait_for_xid(event_set) == (0, 79)
    pynvml.nvmlEventSetFree(event_set)


def test_wait_with_a_lost_gpu_fails_after_pending_events(simulated: Simulated) -> None:
    event_set = listen(0, 1)
    simulated.edit(lambda node: node.with_xid(1, 79).lose(1))
    data = pynvml.nvmlEventSetWait_v2(event_set, 2000)
    assert data.eventData == 79
    with answers(pynvml.NVML_ERROR_GPU_IS_LOST):
        pynvml.nvmlEventSetWait_v2(event_set, 2000)
    pynvml.nvmlEventSetFree(event_set)


def test_events_may_be_unsupported(simulated: Simulated) -> None:
    assert pynvml.nvmlDeviceGetSupportedEventTypes(gpu()) == (
        pynvml.nvmlEventTypeXidCriticalError
        | pynvml.nvmlEventTypeGpuUnavailableError
        | pynvml.nvmlEventTypeGpuRecoveryAction
    )
    simulated.edit(lambda node: node.with_fail(0, "events", pynvml.NVML_ERROR_NOT_SUPPORTED))
    with answers(pynvml.NVML_ERROR_NOT_SUPPORTED):
        listen(0)


def test_file_is_polled_where_the_kernel_reports_no_changes(simulated: Simulated) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = gpu()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # no further descriptor
    try:
        event_set = pynvml.nvmlEventSetCreate()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    pynvml.nvmlDeviceRegisterEvents(first, pynvml.nvmlEventTypeXidCriticalError, event_set)
    late = threading.Timer(0.3, lambda: simulated.edit(lambda node: node.with_xid(0, 79)))
    late.start()
    assert wait_for_xid(event_set, 10_000) == (0, 79)
    late.join()
    with answers(pynvml.NVML_ERROR_TIMEOUT):
        wait_for_xid(event_set, 30)
    pynvml.nvmlEventSetFree(event_set)
