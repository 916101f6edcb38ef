"""XIDs as nvidia-ml-py delivers them from simulated GPUs."""

from dataclasses import replace
from typing import Any

import pynvml
import pytest
import structlog

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceEvent,
    DeviceLostError,
    EventSource,
    HardwareUnavailableError,
    Recovery,
)
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_simgpu.model import RECOVERY_EVENT, UNAVAILABLE_EVENT, SimNode
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.nvml import FailCall
from gpufleet_testing.simulated import Simulated

WORDS = {
    3: "Not Supported",
    4: "Insufficient Permissions",
    15: "GPU is lost",
    28: "Error of another version",
    999: "Unknown Error",
}
UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


def not_registered(gpu: int, code: int, *, retried: bool) -> dict[str, Any]:
    return {
        "event": "events not registered: XIDs are not seen",
        "uuid": UUIDS[gpu],
        "error": f"{WORDS[code]} ({code})",
        "retried": retried,
        "log_level": "warning",
    }


def test_xids_name_their_device_and_whose_fault_they_are(simulated: Simulated, hardware: NvmlHardware) -> None:
    assert isinstance(hardware, EventSource)
    assert hardware.wait_event(0.02) is None
    simulated.edit(lambda node: node.with_xid(2, 31).with_xid(1, 79).with_xid(1, 777))
    assert hardware.wait_event(5) == DeviceEvent(UUIDS[2], "XidError", 31, "XID 31: GPU memory page fault", fault=False)
    message = "XID 79: GPU has fallen off the bus"
    lost = DeviceEvent(UUIDS[1], "XidError", 79, message, fault=True, recovery=Recovery.REBOOT)
    assert hardware.wait_event(5) == lost
    unknown = DeviceEvent(UUIDS[1], "XidError", 777, "XID 777", fault=False, warning="XidWithoutAction")
    assert hardware.wait_event(5) == unknown


def test_event_types_of_recovery_and_unavailable_gpu_are_registered(
    simulated: Simulated, hardware: NvmlHardware
) -> None:
    assert hardware.wait_event(0.02) is None
    simulated.edit(lambda node: node.with_event(1, RECOVERY_EVENT, 1).with_event(1, UNAVAILABLE_EVENT).with_xid(0, 31))
    changed, unavailable, xid = (hardware.wait_event(5) for _ in range(3))
    assert changed == DeviceEvent(UUIDS[1], "RecoveryActionChanged", 1, "recovery action changed", fault=False)
    assert unavailable is not None
    assert (unavailable.uuid, unavailable.kind, unavailable.fault) == (UUIDS[1], "GpuUnavailable", True)
    assert unavailable.recovery is Recovery.RESET
    assert xid is not None
    assert (xid.uuid, xid.code) == (UUIDS[0], 31)


def test_lost_device_does_not_block_events_of_others(simulated: Simulated, hardware: NvmlHardware) -> None:
    assert hardware.wait_event(0.02) is None
    simulated.edit(lambda node: node.lose(1))
    with pytest.raises(DeviceLostError):
        hardware.read(UUIDS[1])
    assert hardware.wait_event(0.02) is None, "the wait that fails"
    assert hardware.wait_event(0.02) is None, "a new set, without it"
    simulated.edit(lambda node: node.with_xid(0, 48))
    event = hardware.wait_event(5)
    assert event is not None
    assert (event.uuid, event.code) == (UUIDS[0], 48)

    simulated.edit(lambda node: node.restore(1))
    hardware.read(UUIDS[1])
    assert hardware.wait_event(0.02) is None, "registered again"
    simulated.edit(lambda node: node.with_xid(1, 48))
    event = hardware.wait_event(5)
    assert event is not None
    assert event.uuid == UUIDS[1]


def test_devices_without_events_are_waited_for_in_peace(simulated: Simulated, hardware: NvmlHardware) -> None:
    def without_events(node: SimNode) -> SimNode:
        for index in range(4):
            node = node.with_fail(index, "events", pynvml.NVML_ERROR_NOT_SUPPORTED)
        return node

    simulated.edit(without_events)
    assert hardware.wait_event(0.01) is None
    simulated.edit(lambda node: node.with_xid(0, 79))
    assert hardware.wait_event(0.01) is None


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, 15, 28])
def test_failed_registration_is_logged_once_counted_and_retried(
    simulated: Simulated, hardware: NvmlHardware, code: int
) -> None:
    simulated.edit(lambda node: node.with_fail(1, "events", code))
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            assert hardware.wait_event(0.01) is None
    assert logged == [not_registered(1, code, retried=True)]
    assert [hardware.read_slow(uuid).unreadable for uuid in UUIDS[:2]] == [(), ("events",)]
    simulated.edit(lambda node: node.restore(1))
    with structlog.testing.capture_logs() as logged:
        assert hardware.wait_event(0.01) is None
    assert logged == [{"event": "events registered", "uuid": UUIDS[1], "log_level": "info"}]
    assert hardware.read_slow(UUIDS[1]).unreadable == ()
    simulated.edit(lambda node: node.with_xid(1, 79))
    event = hardware.wait_event(5)
    assert event is not None
    assert (event.uuid, event.code) == (UUIDS[1], 79)


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION])
def test_rejected_registration_is_logged_once(simulated: Simulated, hardware: NvmlHardware, code: int) -> None:
    simulated.edit(lambda node: node.with_fail(1, "events", code))
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            assert hardware.wait_event(0.01) is None
    assert logged == [not_registered(1, code, retried=False)]
    assert hardware.read_slow(UUIDS[1]).unreadable == (), "absent for good"


def test_xids_are_registered_although_other_types_are_unknown(
    simulated: Simulated, hardware: NvmlHardware, fail_call: FailCall
) -> None:
    fail_call("nvmlDeviceGetSupportedEventTypes", pynvml.NVML_ERROR_UNKNOWN)
    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            assert hardware.wait_event(0.01) is None
    assert [(entry["uuid"], entry["error"]) for entry in logged] == [(uuid, "Unknown Error (999)") for uuid in UUIDS]
    simulated.edit(lambda node: node.with_xid(1, 79))
    event = hardware.wait_event(5)
    assert event is not None
    assert (event.uuid, event.code) == (UUIDS[1], 79)


def test_event_set_that_cannot_be_created_is_an_error_and_counted(hardware: NvmlHardware, fail_call: FailCall) -> None:
    fail_call("nvmlEventSetCreate", pynvml.NVML_ERROR_UNKNOWN)
    with pytest.raises(DeviceAccessError, match=r"\(999\)"):
        hardware.wait_event(0.01)
    assert [hardware.read_slow(uuid).unreadable for uuid in UUIDS] == [("events",)] * 4


def test_wait_that_fails_for_ever_is_logged_once(hardware: NvmlHardware, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlEventSetWait_v2", failing)
    with structlog.testing.capture_logs() as logged:
        assert [hardware.wait_event(0.001) for _ in range(12)] == [None] * 12
    (entry,) = logged
    assert (entry["log_level"], entry["error"]) == ("warning", "GPU is lost (15)")


def test_waiting_without_a_driver_is_an_error(simulated: Simulated, hardware: NvmlHardware) -> None:
    assert hardware.wait_event(0.01) is None
    simulated.edit(lambda node: replace(node, error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with pytest.raises(HardwareUnavailableError):
        hardware.wait_event(5)
