"""The reader on the real nvidia-ml-py and simulated GPUs."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import pynvml
import pytest

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceError,
    DeviceInfo,
    DeviceLostError,
    DeviceReadError,
    DeviceResetRequiredError,
    DriverNotLoadedError,
    HardwareError,
    HardwareUnavailableError,
    LibraryMismatchError,
    ProcessMemory,
    Reading,
    SlowReading,
    ThrottleReason,
    UnknownDeviceError,
)
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_simgpu.model import ALL, NOT_AVAILABLE, SWITCH, SimLinks, SimProcess
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.nvml import nvml_is_closed
from gpufleet_testing.simulated import Simulated

SLOW_NUMBERS = (
    "requested_power_limit_milliwatts",
    "encoder_percent",
    "decoder_percent",
    "energy_millijoules",
    "pcie_replays",
    "ecc_corrected",
    "ecc_uncorrected",
    "remapped_correctable",
    "remapped_uncorrectable",
    "remap_pending",
    "remap_failed",
    "retirement_pending",
    "mig_mode",
)
UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


def identify_all(hardware: NvmlHardware) -> tuple[DeviceInfo, ...]:
    """As the sampler does it; what doesn't answer is left out."""
    for slot in range(hardware.device_count()):
        with suppress(DeviceError):
            hardware.identify(slot)
    return hardware.devices()


def test_devices_tell_who_they_are(hardware: NvmlHardware) -> None:
    devices = identify_all(hardware)
    assert [device.uuid for device in devices] == UUIDS
    assert [device.index for device in devices] == [0, 1, 2, 3]
    third = devices[2]
    assert (third.model, third.architecture, third.compute_capability) == ("NVIDIA H100 80GB HBM3", "Hopper", "9.0")
    assert (third.pci_bus_id, third.numa_node, third.memory_total_mib) == ("00000000:1D:00.0", 0, 81559)
    assert third.nvlink_peers == tuple(sorted({*UUIDS} - {third.uuid})), "all of them, through the switches"
    assert hardware.driver_version() == "580.95.05"


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_IRQ_ISSUE, 12345])
@pytest.mark.parametrize(
    "what", ["architecture", "compute_capability", "name", "memory_total_mib", "minor", "numa_node", "pci_bus_id"]
)
def test_an_odd_answer_about_what_a_device_is_does_not_leave_it_out(simulated: Simulated, what: str, code: int) -> None:
    simulated.edit(lambda node: node.with_fail(1, what, code))
    hardware = NvmlHardware()
    hardware.open()
    devices = identify_all(hardware)
    hardware.close()
    assert [device.uuid for device in devices] == UUIDS
    assert nvml_is_closed()


def test_direct_links_reach_their_far_end_alone(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(
        lambda node: (
            node.with_gpu(0, links=(SimLinks(1, 2),))
            .with_gpu(1, links=(SimLinks(0, 2), SimLinks(SWITCH, 1)))
            .with_gpu(2, links=(SimLinks(SWITCH, 1),))
            .with_gpu(3, links=())
        )
    )
    assert [device.nvlink_peers for device in identify_all(hardware)] == [
        (UUIDS[1],),
        tuple(sorted((UUIDS[0], UUIDS[2]))),
        (UUIDS[1],),
        (),
    ]


def test_reading_has_the_values_of_the_hardware(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(
        lambda node: node.with_gpu(
            1,
            memory_used_mib=412,
            memory_reserved_mib=600,
            utilization_percent=37,
            memory_utilization_percent=12,
            temperature_celsius=-5,
            power_milliwatts=71250,
            memory_temperature_celsius=61,
            sm_clock_mhz=1980,
            throttle_reasons=0x4 | 0x40 | 0x1 | 0x10000,
            processes=(SimProcess(7, 1), SimProcess(8, 1), SimProcess(8, 0, "G"), SimProcess(9, 0, "G")),
        )
    )
    assert hardware.read(UUIDS[1]) == Reading(
        uuid=UUIDS[1],
        memory_total_mib=81559,
        memory_used_mib=412,
        utilization_percent=37,
        memory_utilization_percent=12,
        temperature_celsius=-5,
        power_milliwatts=71250,
        power_limit_milliwatts=700000,
        memory_reserved_mib=600,
        memory_temperature_celsius=61,
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        # Idling, and bits of a later driver, are left out.
        throttle_reasons=frozenset({ThrottleReason.SW_POWER_CAP, ThrottleReason.HW_THERMAL_SLOWDOWN}),
    )
    slow = hardware.read_slow(UUIDS[1])
    assert slow.process_count == 3
    assert slow.processes == (ProcessMemory(7, 1), ProcessMemory(8, 1), ProcessMemory(9, 0))
    assert hardware.read_slow(UUIDS[0]).process_count == 0


def test_every_reason_for_slow_clocks_has_its_bit(simulated: Simulated, hardware: NvmlHardware) -> None:
    """By the numbers that the driver's interface gives them."""
    bits = {
        0x2: ThrottleReason.APPLICATION_CLOCKS,
        0x4: ThrottleReason.SW_POWER_CAP,
        0x8: ThrottleReason.HW_SLOWDOWN,
        0x10: ThrottleReason.SYNC_BOOST,
        0x20: ThrottleReason.SW_THERMAL_SLOWDOWN,
        0x40: ThrottleReason.HW_THERMAL_SLOWDOWN,
        0x80: ThrottleReason.HW_POWER_BRAKE_SLOWDOWN,
        0x100: ThrottleReason.DISPLAY_CLOCKS,
    }
    assert set(bits.values()) == set(ThrottleReason)
    for bit, reason in bits.items():
        simulated.edit(lambda node, bit=bit: node.with_gpu(0, throttle_reasons=bit))  # type: ignore[misc] # default binds now
        assert hardware.read(UUIDS[0]).throttle_reasons == frozenset({reason})
    simulated.edit(lambda node: node.with_gpu(0, throttle_reasons=1))
    assert hardware.read(UUIDS[0]).throttle_reasons == frozenset()


def test_slow_reading_has_the_values_of_the_hardware(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(
        lambda node: node.with_gpu(
            0,
            encoder_percent=3,
            decoder_percent=4,
            energy_millijoules=NOT_AVAILABLE,
            pcie_replays=5,
            ecc_corrected=6,
            ecc_uncorrected=7,
            remapped_correctable=8,
            remapped_uncorrectable=9,
            remap_pending=1,
            remap_failed=0,
            mig_mode=1,
            requested_power_limit_milliwatts=650_000,
        )
    )
    assert hardware.read_slow(UUIDS[0]) == SlowReading(
        uuid=UUIDS[0],
        process_count=0,
        processes=(),
        process_utilization=(),
        encoder_percent=3,
        decoder_percent=4,
        energy_millijoules=None,
        pcie_replays=5,
        ecc_corrected=6,
        ecc_uncorrected=7,
        remapped_correctable=8,
        remapped_uncorrectable=9,
        row_remap_pending=True,
        row_remap_failed=False,
        mig_enabled=True,
        requested_power_limit_milliwatts=650_000,
    )
    energy = hardware.read_slow(UUIDS[1]).energy_millijoules
    assert energy is not None
    simulated.edit(lambda node: node.with_gpu(1, energy_millijoules=10**9))
    assert (hardware.read_slow(UUIDS[1]).energy_millijoules or 0) >= 10**9


def test_gpus_before_ampere_retire_pages_and_remap_no_rows(simulated: Simulated) -> None:
    node = make_node("v100", 2)
    simulated.write(node.with_gpu(1, retirement_pending=1))
    hardware = NvmlHardware()
    hardware.open()
    identify_all(hardware)
    first, second = (hardware.read_slow(gpu.uuid) for gpu in node.gpus)
    hardware.close()
    assert (first.page_retirement_pending, second.page_retirement_pending) == (False, True)
    assert (first.row_remap_pending, first.row_remap_failed, first.remapped_correctable) == (None, None, None)
    assert first.mig_enabled is None


def test_what_is_not_supported_is_absent_and_asked_for_once(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(
        lambda node: (
            node.with_gpu(
                0,
                memory_total_mib=None,
                utilization_percent=None,
                temperature_celsius=None,
                power_milliwatts=None,
                power_limit_milliwatts=None,
                memory_temperature_celsius=None,
                sm_clock_mhz=None,
                memory_clock_mhz=None,
                throttle_reasons=None,
                **dict.fromkeys(SLOW_NUMBERS),
            )
            .with_fail(0, "processes", pynvml.NVML_ERROR_NO_PERMISSION)
            .with_fail(0, "process_utilization", pynvml.NVML_ERROR_NO_PERMISSION)
        )
    )
    assert hardware.read(UUIDS[0]) == Reading(uuid=UUIDS[0])
    assert hardware.read_slow(UUIDS[0]) == SlowReading(uuid=UUIDS[0])

    simulated.write(make_node("h100", 4))
    assert hardware.read(UUIDS[0]) == Reading(uuid=UUIDS[0]), "remembered"
    assert hardware.read_slow(UUIDS[0]) == SlowReading(uuid=UUIDS[0]), "remembered"
    assert hardware.read(UUIDS[1]).temperature_celsius is not None, "for that device alone"
    hardware.open()
    identify_all(hardware)
    assert hardware.read(UUIDS[0]).temperature_celsius is not None, "until NVML is reopened"


def test_sentinels_are_absent(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(
        lambda node: node.with_gpu(
            0,
            memory_used_mib=NOT_AVAILABLE,
            memory_total_mib=NOT_AVAILABLE,
            utilization_percent=NOT_AVAILABLE,
            memory_utilization_percent=NOT_AVAILABLE,
            temperature_celsius=NOT_AVAILABLE,
            power_milliwatts=NOT_AVAILABLE,
            power_limit_milliwatts=NOT_AVAILABLE,
            memory_reserved_mib=NOT_AVAILABLE,
            memory_temperature_celsius=NOT_AVAILABLE,
            sm_clock_mhz=NOT_AVAILABLE,
            memory_clock_mhz=NOT_AVAILABLE,
            throttle_reasons=NOT_AVAILABLE,
            processes=(SimProcess(7, NOT_AVAILABLE),),
            **dict.fromkeys(SLOW_NUMBERS, NOT_AVAILABLE),
        )
    )
    assert hardware.read(UUIDS[0]) == Reading(uuid=UUIDS[0])
    assert hardware.read_slow(UUIDS[0]) == SlowReading(
        uuid=UUIDS[0], process_count=1, processes=(ProcessMemory(7, None),), process_utilization=()
    )
    assert identify_all(hardware)[0].memory_total_mib is None


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_IRQ_ISSUE])
def test_a_reading_goes_without_what_a_driver_fails_to_tell(
    simulated: Simulated, hardware: NvmlHardware, code: int
) -> None:
    """As some do with a single call, for as long as they run. The device is none the worse for it."""
    failing = ("sm_clock_mhz", "memory_temperature_celsius", "throttle_reasons", "ecc_uncorrected", "remap_failed")
    for extra in failing:
        simulated.edit(lambda node, extra=extra: node.with_fail(0, extra, code))  # type: ignore[misc] # default binds now
    reading, slow = hardware.read(UUIDS[0]), hardware.read_slow(UUIDS[0])
    assert (reading.sm_clock_mhz, reading.memory_temperature_celsius, reading.throttle_reasons) == (None, None, None)
    assert (reading.memory_clock_mhz, reading.temperature_celsius) == (2619, 30)
    assert (slow.ecc_uncorrected, slow.row_remap_failed, slow.ecc_corrected, slow.process_count) == (None, None, 0, 0)
    assert reading.unreadable == ("SM clock", "memory temperature", "throttle reasons")
    assert slow.unreadable == ("remapped rows", "uncorrected ECC errors")
    simulated.edit(lambda node: node.restore(0))
    assert hardware.read(UUIDS[0]).sm_clock_mhz == 345, "it is asked again"
    assert hardware.read(UUIDS[0]).unreadable == ()
    simulated.edit(lambda node: node.with_fail(0, "sm_clock_mhz", pynvml.NVML_ERROR_GPU_IS_LOST))
    with pytest.raises(DeviceLostError):
        hardware.read(UUIDS[0])


def test_values_missing_for_a_moment_are_asked_for_again(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(lambda node: node.with_fail(0, "power_milliwatts", pynvml.NVML_ERROR_NO_DATA))
    assert hardware.read(UUIDS[0]).power_milliwatts is None
    simulated.edit(lambda node: node.restore(0))
    assert hardware.read(UUIDS[0]).power_milliwatts is not None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (pynvml.NVML_ERROR_UNINITIALIZED, DriverNotLoadedError),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, DriverNotLoadedError),
        (pynvml.NVML_ERROR_GPU_IS_LOST, DeviceLostError),
        (pynvml.NVML_ERROR_RESET_REQUIRED, DeviceResetRequiredError),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, LibraryMismatchError),
        (pynvml.NVML_ERROR_UNKNOWN, DeviceAccessError),
        (pynvml.NVML_ERROR_IRQ_ISSUE, DeviceReadError),
    ],
)
def test_each_return_code_is_taken_for_what_it_means(
    simulated: Simulated, hardware: NvmlHardware, code: int, kind: type[HardwareError]
) -> None:
    simulated.edit(lambda node: node.with_fail(1, ALL, code))
    with pytest.raises(kind) as raised:
        hardware.read(UUIDS[1])
    assert type(raised.value) is kind
    with pytest.raises(kind):
        hardware.read_slow(UUIDS[1])
    hardware.read(UUIDS[0])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, DriverNotLoadedError),
        (pynvml.NVML_ERROR_NO_PERMISSION, HardwareUnavailableError),
        (pynvml.NVML_ERROR_UNKNOWN, HardwareUnavailableError),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, LibraryMismatchError),
    ],
)
def test_opening_fails_with_what_can_be_done_about_it(
    simulated: Simulated, code: int, kind: type[HardwareError]
) -> None:
    simulated.edit(lambda node: replace(node, error=code))
    hardware = NvmlHardware()
    with pytest.raises(kind):
        hardware.open()
    hardware.close()
    assert nvml_is_closed()


def test_a_driver_that_goes_while_listing_is_unavailable(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.state.unlink()
    for call in (hardware.device_count, hardware.driver_version, lambda: hardware.identify(0)):
        with pytest.raises(DriverNotLoadedError):
            call()


def test_without_a_library_the_message_says_so() -> None:
    script = (
        "import pynvml\n"
        "def missing(name): raise OSError(name)\n"
        "pynvml.CDLL = missing  # as on a host without a driver, wherever this runs\n"
        "from gpufleet_agent.devices.nvml import NvmlHardware\n"
        "from gpufleet_agent.devices.base import HardwareUnavailableError\n"
        "try: NvmlHardware().open()\n"
        "except HardwareUnavailableError as error: print(error)\n"
        "import sys; print('numpy' in sys.modules, 'pydantic' in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env={"PATH": ""}, capture_output=True, text=True, check=True, timeout=30
    )
    first, heavy = run.stdout.splitlines()
    assert "libnvidia-ml.so.1 not found" in first
    assert heavy == "False False"


def test_a_lost_device_does_not_say_who_it_is_and_the_rest_is_there(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.lose(1).with_fail(2, "name", pynvml.NVML_ERROR_GPU_IS_LOST))
    hardware = NvmlHardware()
    hardware.open()
    assert hardware.device_count() == 4
    for slot in (1, 2):
        with pytest.raises(DeviceLostError):
            hardware.identify(slot)
    assert [device.index for device in identify_all(hardware)] == [0, 3]
    with pytest.raises(UnknownDeviceError):
        hardware.read(UUIDS[1])
    simulated.edit(lambda node: node.restore(1).restore(2))
    assert len(identify_all(hardware)) == 4
    hardware.close()


def test_a_node_without_gpus_has_none(simulated: Simulated) -> None:
    simulated.write(make_node("h100", 0))
    hardware = NvmlHardware()
    hardware.open()
    assert (hardware.device_count(), hardware.devices()) == (0, ())
    hardware.close()
    hardware.close()
    assert nvml_is_closed()
