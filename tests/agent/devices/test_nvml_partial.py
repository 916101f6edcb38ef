"""Calls that fail alone, process lists of other drivers, and the recovery action."""

from contextlib import suppress

import pynvml
import pytest
import structlog

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceError,
    DriverNotLoadedError,
    HardwareError,
    LibraryMismatchError,
    RecoveryAction,
)
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.sampling.errors import InvalidReason
from gpufleet_agent.sampling.validate import validate_facts
from gpufleet_simgpu.model import NOT_AVAILABLE, SimProcess
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.nvml import FailCall, nvml_is_closed
from gpufleet_testing.simulated import Simulated

UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


def identify_all(hardware: NvmlHardware) -> None:
    for slot in range(hardware.device_count()):
        with suppress(DeviceError):
            hardware.identify(slot)


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("power_milliwatts", "power"),
        ("power_limit_milliwatts", "power limit"),
        ("utilization_percent", "utilization"),
        ("temperature_celsius", "temperature"),
    ],
)
@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, 2, 8, 14, 22, 28, 29])
def test_failing_call_makes_only_its_value_absent(
    simulated: Simulated, hardware: NvmlHardware, what: str, name: str, code: int
) -> None:
    simulated.edit(lambda node: node.with_fail(0, what, code))
    with structlog.testing.capture_logs() as events:
        reading = hardware.read(UUIDS[0])
        hardware.read(UUIDS[0])
    assert getattr(reading, what) is None
    assert (reading.memory_total_mib, reading.sm_clock_mhz) == (81559, 345)
    assert reading.unreadable == (name,)
    (event,) = events
    assert (event["event"], event["what"]) == ("value not readable", name)
    assert f"({code})" in event["error"], "the return code, because NVML's words are the same for several"


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, 28, 10, 15, pynvml.NVML_ERROR_NOT_SUPPORTED])
def test_failing_driver_version_is_absent_and_logged_once(
    hardware: NvmlHardware, fail_call: FailCall, code: int
) -> None:
    fail_call("nvmlSystemGetDriverVersion", code)
    with structlog.testing.capture_logs() as events:
        for _ in range(2):
            hardware.open()
            assert (hardware.driver_version(), hardware.device_count()) == (None, 4)
    assert [event["event"] for event in events] == ["driver version not readable"]
    assert f"({code})" in events[0]["error"]
    assert events[0]["log_level"] == "warning"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (pynvml.NVML_ERROR_UNINITIALIZED, DriverNotLoadedError),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, DriverNotLoadedError),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, LibraryMismatchError),
    ],
)
def test_driver_version_reports_a_driver_that_is_gone(
    hardware: NvmlHardware, fail_call: FailCall, code: int, kind: type[HardwareError]
) -> None:
    fail_call("nvmlSystemGetDriverVersion", code)
    with pytest.raises(kind):
        hardware.driver_version()


def test_nvml_is_shut_down_although_the_event_set_cannot_be_freed(hardware: NvmlHardware, fail_call: FailCall) -> None:
    assert hardware.wait_event(0.01) is None, "the event set exists"
    fail_call("nvmlEventSetFree", pynvml.NVML_ERROR_UNKNOWN)
    hardware.close()
    assert nvml_is_closed()


def test_clocks_and_limit_are_read_seldom_and_the_rest_each_time(simulated: Simulated) -> None:
    hardware = NvmlHardware(seldom_seconds=3600)
    hardware.open()
    identify_all(hardware)
    before = hardware.read(UUIDS[0])
    simulated.edit(
        lambda node: node.with_gpu(
            0, sm_clock_mhz=1980, power_limit_milliwatts=500_000, power_milliwatts=400_000, temperature_celsius=70
        )
    )
    after = hardware.read(UUIDS[0])
    assert (after.power_milliwatts, after.temperature_celsius) == (400_000, 70)
    seldom = [(reading.sm_clock_mhz, reading.power_limit_milliwatts) for reading in (before, after)]
    assert seldom[0] == seldom[1]
    hardware.close()


def test_value_that_is_read_seldom_is_read_again_after_a_failure(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_fail(0, "power_limit_milliwatts", 999))
    hardware = NvmlHardware(seldom_seconds=3600)
    hardware.open()
    identify_all(hardware)
    assert [hardware.read(UUIDS[0]).unreadable for _ in range(2)] == [("power limit",)] * 2
    simulated.edit(lambda node: node.with_fail(0, "power_limit_milliwatts", 0))
    assert hardware.read(UUIDS[0]).power_limit_milliwatts is not None
    hardware.close()


def test_failing_process_list_makes_only_processes_absent(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(lambda node: node.with_gpu(0, ecc_uncorrected=5).with_fail(0, "processes", 999))
    slow = hardware.read_slow(UUIDS[0])
    assert (slow.processes, slow.process_count, slow.ecc_uncorrected) == (None, None, 5)
    assert slow.unreadable == ("compute processes", "graphics processes")


def test_failing_memory_fails_the_reading_with_its_code(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(lambda node: node.with_fail(0, "memory_used_mib", pynvml.NVML_ERROR_UNKNOWN))
    with pytest.raises(DeviceAccessError, match=r"memory: Unknown Error \(999\)"):
        hardware.read(UUIDS[0])


def test_lost_nodes_are_the_nodes_that_may_not_be_used(simulated: Simulated) -> None:
    allowed = {"/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia2"}
    hardware = NvmlHardware(may_use=allowed.__contains__)
    hardware.open()
    assert hardware.lost_nodes() is None, "no device is known yet"
    simulated.edit(lambda node: node.with_gpu(3, minor=None))
    identify_all(hardware)
    assert hardware.lost_nodes() == ("/dev/nvidia1",)
    allowed.add("/dev/nvidia1")
    assert hardware.lost_nodes() == ()
    hardware.close()


@pytest.mark.parametrize(("size", "known"), [(16, False), (24, True), (32, False)])
def test_process_list_of_another_driver_is_unknown(
    simulated: Simulated,
    hardware: NvmlHardware,
    size: int,
    known: bool,
) -> None:
    processes = tuple(SimProcess(4711 + number, 5000 + number) for number in range(4))
    simulated.edit(lambda node: node.with_gpu(0, process_bytes=size, processes=processes))
    facts, dropped = validate_facts(hardware.read_slow(UUIDS[0]), registered=UUIDS)
    assert (facts.process_count == 4) is known
    assert (facts.processes is not None) is known
    assert [error.reason for error in dropped] == ([] if known else [InvalidReason.IMPLAUSIBLE_PID])


@pytest.mark.parametrize(
    ("number", "action"),
    [
        (None, None),
        (NOT_AVAILABLE, None),
        (0, RecoveryAction.NONE),
        (1, RecoveryAction.RESET),
        (2, RecoveryAction.REBOOT),
        (3, RecoveryAction.DRAIN_PEERS),
        (4, RecoveryAction.DRAIN_AND_RESET),
        (5, RecoveryAction.RECOVER_DOMAIN),
        (6, RecoveryAction.BUS_RESET),
        (7, RecoveryAction.REBOOT),
        (8, RecoveryAction.UNKNOWN),
    ],
)
def test_recovery_action_is_field_230(
    simulated: Simulated, hardware: NvmlHardware, number: int | None, action: RecoveryAction | None
) -> None:
    simulated.edit(lambda node: node.with_gpu(0, recovery_action=number, memory_temperature_celsius=61))
    reading = hardware.read(UUIDS[0])
    assert (reading.recovery_action, reading.memory_temperature_celsius) == (action, 61)


def test_recovery_action_is_read_again_although_unsupported(simulated: Simulated, hardware: NvmlHardware) -> None:
    assert hardware.read(UUIDS[0]).recovery_action is None
    simulated.edit(lambda node: node.with_gpu(0, recovery_action=1))
    reading = hardware.read(UUIDS[0])
    assert (reading.recovery_action, reading.unreadable) == (RecoveryAction.RESET, ())
