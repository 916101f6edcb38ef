"""The real nvidia-ml-py against our library."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from gpufleet_simgpu.files import STATE
from gpufleet_simgpu.model import ALL, NOT_AVAILABLE, SWITCH, SimLinks, SimNode, SimProcess, SimSeries
from gpufleet_simgpu.presets import make_node
from gpufleet_simgpu.text import NUMBERS
from gpufleet_testing.simulated import Simulated

STUCK = 3_600_000


pytestmark = pytest.mark.usefixtures("nvml")


def gpu(index: int = 0) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


@contextmanager
def answers(code: int) -> Iterator[None]:
    with pytest.raises(pynvml.NVMLError) as raised:
        yield
    assert raised.value.value == code


def test_library_is_found_by_the_loader(simulated_library: Path, simulated: Simulated) -> None:
    script = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(1)))"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(simulated_library.parent)}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stdout.strip() == make_node("h100", 4).gpus[1].uuid


def test_state_file_path_is_configurable(simulated_library: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("driver 1.2\n")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(simulated_library.parent),
        "GPUFLEET_SIM_STATE": str(tmp_path / "other"),
    }
    script = "import pynvml as n; n.nvmlInit(); print(n.nvmlSystemGetDriverVersion(), n.nvmlDeviceGetCount())"
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stdout.split() == ["1.2", "0"]


def test_identity(simulated: Simulated) -> None:
    expected = make_node("h100", 4).gpus[2]
    device = gpu(2)
    assert pynvml.nvmlDeviceGetCount() == 4
    assert pynvml.nvmlSystemGetDriverVersion() == "580.95.05"
    assert pynvml.nvmlSystemGetNVMLVersion() == "12.580.95.05"
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 13000
    assert pynvml.nvmlDeviceGetName(device) == "NVIDIA H100 80GB HBM3"
    assert pynvml.nvmlDeviceGetUUID(device) == expected.uuid
    assert pynvml.nvmlDeviceGetSerial(device) == expected.serial
    assert pynvml.nvmlDeviceGetIndex(device) == 2
    assert pynvml.nvmlDeviceGetMinorNumber(device) == 2
    assert pynvml.nvmlDeviceGetArchitecture(device) == pynvml.NVML_DEVICE_ARCH_HOPPER
    assert pynvml.nvmlDeviceGetCudaComputeCapability(device) == (9, 0)
    assert list(pynvml.nvmlDeviceGetMemoryAffinity(device, 2, 0)) == [1, 0]
    pci = pynvml.nvmlDeviceGetPciInfo(device)
    assert (pci.busId, pci.bus, pci.busIdLegacy) == ("00000000:1D:00.0", 0x1D, "0000:1d:00.0")
    for found in (
        pynvml.nvmlDeviceGetHandleByUUID(expected.uuid),
        pynvml.nvmlDeviceGetHandleByPciBusId("00000000:1d:00.0"),
    ):
        assert pynvml.nvmlDeviceGetIndex(found) == 2
    with answers(pynvml.NVML_ERROR_INVALID_ARGUMENT):
        gpu(4)
    with answers(pynvml.NVML_ERROR_NOT_FOUND):
        pynvml.nvmlDeviceGetHandleByUUID("GPU-0")


ONE_NUMBER: list[tuple[str, Callable[[Any], Any]]] = [
    ("utilization_percent", lambda device: pynvml.nvmlDeviceGetUtilizationRates(device).gpu),
    ("encoder_percent", lambda device: pynvml.nvmlDeviceGetEncoderUtilization(device)[0]),
    ("decoder_percent", lambda device: pynvml.nvmlDeviceGetDecoderUtilization(device)[0]),
    ("temperature_celsius", lambda device: pynvml.nvmlDeviceGetTemperature(device, 0)),
    ("temperature_celsius", lambda device: pynvml.nvmlDeviceGetTemperatureV(device, 0)),
    ("memory_temperature_celsius", lambda device: field(device, pynvml.NVML_FI_DEV_MEMORY_TEMP)),
    ("power_milliwatts", pynvml.nvmlDeviceGetPowerUsage),
    ("power_milliwatts", lambda device: field(device, pynvml.NVML_FI_DEV_POWER_INSTANT)),
    ("power_limit_milliwatts", pynvml.nvmlDeviceGetEnforcedPowerLimit),
    ("requested_power_limit_milliwatts", pynvml.nvmlDeviceGetPowerManagementLimit),
    ("energy_millijoules", pynvml.nvmlDeviceGetTotalEnergyConsumption),
    ("sm_clock_mhz", lambda device: pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM)),
    ("memory_clock_mhz", lambda device: pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_MEM)),
    ("max_sm_clock_mhz", lambda device: pynvml.nvmlDeviceGetMaxClockInfo(device, pynvml.NVML_CLOCK_SM)),
    ("max_memory_clock_mhz", lambda device: pynvml.nvmlDeviceGetMaxClockInfo(device, pynvml.NVML_CLOCK_MEM)),
    ("performance_state", pynvml.nvmlDeviceGetPerformanceState),
    ("throttle_reasons", pynvml.nvmlDeviceGetCurrentClocksEventReasons),
    ("throttle_reasons", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons),
    ("ecc_enabled", lambda device: pynvml.nvmlDeviceGetEccMode(device)[0]),
    ("ecc_corrected", lambda device: pynvml.nvmlDeviceGetTotalEccErrors(device, 0, 1)),
    ("ecc_uncorrected", lambda device: pynvml.nvmlDeviceGetTotalEccErrors(device, 1, 1)),
    ("remapped_correctable", lambda device: pynvml.nvmlDeviceGetRemappedRows(device)[0]),
    ("remapped_uncorrectable", lambda device: pynvml.nvmlDeviceGetRemappedRows(device)[1]),
    ("remap_pending", lambda device: pynvml.nvmlDeviceGetRemappedRows(device)[2]),
    ("remap_failed", lambda device: pynvml.nvmlDeviceGetRemappedRows(device)[3]),
    ("retirement_pending", pynvml.nvmlDeviceGetRetiredPagesPendingStatus),
    ("mig_mode", lambda device: pynvml.nvmlDeviceGetMigMode(device)[0]),
    ("architecture", pynvml.nvmlDeviceGetArchitecture),
    ("minor", pynvml.nvmlDeviceGetMinorNumber),
    ("pcie_generation", pynvml.nvmlDeviceGetCurrPcieLinkGeneration),
    ("pcie_width", pynvml.nvmlDeviceGetCurrPcieLinkWidth),
    ("pcie_replays", pynvml.nvmlDeviceGetPcieReplayCounter),
    ("recovery_action", lambda device: field(device, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)),
    ("memory_numa_node", pynvml.nvmlDeviceGetNumaNodeId),
    ("memory_total_mib", lambda device: pynvml.nvmlDeviceGetMemoryInfo(device).total >> 20),
    ("memory_used_mib", lambda device: pynvml.nvmlDeviceGetMemoryInfo(device, pynvml.nvmlMemory_v2).used >> 20),
]


def field(device: object, number: int) -> int:
    [value] = pynvml.nvmlDeviceGetFieldValues(device, [number])
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return int(value.value.uiVal)


@pytest.mark.parametrize(("name", "call"), ONE_NUMBER)
def test_each_number_changes_disappears_and_fails_separately(
    simulated: Simulated, name: str, call: Callable[[Any], Any]
) -> None:
    device = gpu(1)
    # What a device has drawn counts on top of the file for as long as the process lives: other tests, too, drew.
    simulated.edit(lambda node: node.with_gpu(1, power_milliwatts=0, energy_millijoules=0))
    drawn = call(device) if name == "energy_millijoules" else 0
    simulated.edit(lambda node: node.with_gpu(1, **{name: 77}))
    assert call(device) - drawn == 77
    simulated.edit(lambda node: node.with_gpu(1, **{name: None}))
    with answers(pynvml.NVML_ERROR_NOT_SUPPORTED):
        call(device)
    if name != "memory_total_mib":  # memory fails as one
        simulated.edit(lambda node: node.with_fail(1, name, pynvml.NVML_ERROR_NO_PERMISSION))
        with answers(pynvml.NVML_ERROR_NO_PERMISSION):
            call(device)


def test_every_number_has_a_call() -> None:
    assert {name for name, _ in ONE_NUMBER} | {
        "memory_reserved_mib",
        "memory_utilization_percent",
        "numa_node",
        "process_bytes",
    } == set(NUMBERS)


def test_memory_of_both_versions(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_gpu(0, memory_total_mib=1000, memory_used_mib=300, memory_reserved_mib=50))
    memory = pynvml.nvmlDeviceGetMemoryInfo(gpu(), pynvml.nvmlMemory_v2)
    assert [part >> 20 for part in (memory.total, memory.reserved, memory.used, memory.free)] == [1000, 50, 300, 650]
    memory = pynvml.nvmlDeviceGetMemoryInfo(gpu())
    assert [part >> 20 for part in (memory.total, memory.used, memory.free)] == [1000, 350, 650]


def test_sentinels_and_impossible_values_are_returned(simulated: Simulated) -> None:
    simulated.edit(
        lambda node: node.with_gpu(
            0, memory_used_mib=NOT_AVAILABLE, utilization_percent=250, temperature_celsius=-300, power_milliwatts=-1
        )
    )
    assert pynvml.nvmlDeviceGetMemoryInfo(gpu(), pynvml.nvmlMemory_v2).used == 2**64 - 1
    assert pynvml.nvmlDeviceGetUtilizationRates(gpu()).gpu == 250
    assert pynvml.nvmlDeviceGetTemperatureV(gpu(), 0) == -300
    assert pynvml.nvmlDeviceGetPowerUsage(gpu()) == 2**32 - 1


def test_processes(simulated: Simulated) -> None:
    listed = (SimProcess(4711, 5000), SimProcess(4712, NOT_AVAILABLE), SimProcess(99, 10, "G"))
    simulated.edit(lambda node: node.with_gpu(0, processes=listed))
    compute = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu())
    assert [(process.pid, process.usedGpuMemory) for process in compute] == [(4711, 5000 << 20), (4712, None)]
    [graphics] = pynvml.nvmlDeviceGetGraphicsRunningProcesses(gpu())
    assert graphics.pid == 99
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(gpu(1)) == []


def test_nvlink_to_a_switch_and_to_each_other(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_gpu(0, links=(SimLinks(1, 2), SimLinks(SWITCH, 1))).with_gpu(1, links=()))
    types = [pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(gpu(), link) for link in range(3)]
    assert types == [pynvml.NVML_NVLINK_DEVICE_TYPE_GPU] * 2 + [pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH]
    assert pynvml.nvmlDeviceGetNvLinkState(gpu(), 2) == 1
    assert pynvml.nvmlDeviceGetNvLinkRemotePciInfo(gpu(), 0).busId == pynvml.nvmlDeviceGetPciInfo(gpu(1)).busId
    assert field(gpu(), pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT) == 3
    with answers(pynvml.NVML_ERROR_NOT_SUPPORTED):
        pynvml.nvmlDeviceGetNvLinkState(gpu(), 3)
    with answers(pynvml.NVML_ERROR_INVALID_ARGUMENT):
        pynvml.nvmlDeviceGetNvLinkState(gpu(), 99)


def test_energy_grows_with_power_and_time(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_gpu(3, power_milliwatts=1_000_000, energy_millijoules=10_000))
    first = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu(3))
    begun = time.monotonic()
    assert first >= 10_000
    while (second := pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu(3))) < first + 10_000:
        assert time.monotonic() - begun < 30
    assert second - first <= (time.monotonic() - begun) * 1_000_000 + 1_000


def test_lost_gpu_fails_every_call_but_others_do_not(simulated: Simulated) -> None:
    device, other = gpu(1), gpu(0)
    simulated.edit(lambda node: node.lose(1))
    for call in (pynvml.nvmlDeviceGetUUID, pynvml.nvmlDeviceGetPowerUsage, pynvml.nvmlDeviceGetUtilizationRates):
        with answers(pynvml.NVML_ERROR_GPU_IS_LOST):
            call(device)
        call(other)
    with answers(pynvml.NVML_ERROR_GPU_IS_LOST):
        gpu(1)
    simulated.edit(lambda node: node.restore(1))
    assert pynvml.nvmlDeviceGetPowerUsage(device) > 0


def test_gpu_removed_from_the_file_is_lost(simulated: Simulated) -> None:
    device = gpu(3)
    simulated.write(make_node("h100", 2))
    with answers(pynvml.NVML_ERROR_GPU_IS_LOST):
        pynvml.nvmlDeviceGetPowerUsage(device)


def test_hung_call_ends_when_the_file_changes(simulated: Simulated) -> None:
    device, other = gpu(1), gpu(0)
    simulated.edit(lambda node: node.with_delay(1, ALL, STUCK))
    power: list[int] = []
    stuck = threading.Thread(target=lambda: power.append(pynvml.nvmlDeviceGetPowerUsage(device)))
    stuck.start()
    for _ in range(100):
        pynvml.nvmlDeviceGetPowerUsage(other)
    assert stuck.is_alive()
    simulated.edit(lambda node: node.restore(1))
    stuck.join(30)
    assert len(power) == 1


def test_delay_is_observed(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_delay(0, "power_milliwatts", 60))
    begun = time.monotonic()
    pynvml.nvmlDeviceGetPowerUsage(gpu())
    assert time.monotonic() - begun >= 0.06


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_DRIVER_NOT_LOADED, 18, 999])
def test_node_error_fails_every_call(simulated: Simulated, code: int) -> None:
    device = gpu()
    simulated.edit(lambda node: replace(node, error=code))
    for call in (
        pynvml.nvmlInit,
        pynvml.nvmlDeviceGetCount,
        pynvml.nvmlSystemGetDriverVersion,
        lambda: pynvml.nvmlDeviceGetPowerUsage(device),
    ):
        with answers(code):
            call()


def test_missing_state_file_means_no_driver(simulated: Simulated) -> None:
    device = gpu()
    simulated.state.unlink()
    with answers(pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
        pynvml.nvmlDeviceGetPowerUsage(device)
    with answers(pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
        pynvml.nvmlInit()


def test_calls_before_init_and_after_shutdown_fail(simulated: Simulated) -> None:
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetCount() == 4, "initialized twice, shut down once"
    pynvml.nvmlShutdown()
    with answers(pynvml.NVML_ERROR_UNINITIALIZED):
        pynvml.nvmlDeviceGetCount()
    with answers(pynvml.NVML_ERROR_UNINITIALIZED):
        pynvml.nvmlShutdown()
    pynvml.nvmlInit()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gpu 1", "line 1: gpu 1: the next is 0"),
        ("gpu 0\n  color red", "line 2: no field `color`"),
        ("gpu 0\n  power_milliwatts much", "line 2: `much` is not a number"),
        ("gpu 0\n  power_milliwatts 1 2", "line 2: too much on the line"),
        ("gpu 0\n  fail all 1000000000", "line 2: 1000000000 is not within"),
        ("gpu 0\n  series none.txt loop 0", "line 2: "),
        ("color red", "line 1: `color` is not known here"),
        ("xid 2 0 79\nxid 2 0 79", "line 2: xid sequences must rise"),
    ],
)
def test_broken_file_is_reported_once_and_the_old_state_stays(
    simulated: Simulated, capfd: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    assert pynvml.nvmlDeviceGetCount() == 4
    simulated.state.write_text(text + "\n")
    assert pynvml.nvmlDeviceGetCount() == 4
    assert pynvml.nvmlDeviceGetCount() == 4
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert problem in said
    assert STATE in said


def test_series_is_played_and_repeats_or_holds(simulated: Simulated) -> None:
    (simulated.folder / "course.txt").write_text(
        "# a comment\n0 utilization_percent=10 temperature_celsius=40\n1000 utilization_percent=20\n"
        "2000 utilization_percent=30\n3000\n"
    )

    def play(started_ago: float, *, loop: bool) -> tuple[int, int]:
        series = SimSeries("course.txt", time.time() - started_ago, loop=loop)
        simulated.edit(lambda node: node.with_gpu(0, series=series, utilization_percent=77))
        return pynvml.nvmlDeviceGetUtilizationRates(gpu()).gpu, pynvml.nvmlDeviceGetTemperature(gpu(), 0)

    assert play(10, loop=True) == (10, 40)
    assert play(1500, loop=True) == (20, 40)
    assert play(2500, loop=True) == (30, 40)
    assert play(3000 + 1500, loop=True) == (20, 40)
    assert play(3000 + 1500, loop=False) == (30, 40)
    assert play(-10, loop=True) == (77, make_node("h100", 1).gpus[0].temperature_celsius), "not begun yet"


def test_threads_read_while_the_file_changes(simulated: Simulated) -> None:
    stop = threading.Event()
    seen: list[set[int]] = []

    def ask(index: int) -> None:
        device, values = gpu(index), set()
        while not stop.is_set():
            load = pynvml.nvmlDeviceGetUtilizationRates(device)
            assert load.gpu == load.memory, "two numbers of one moment"
            values.add(load.gpu)
        seen.append(values)

    def both(value: int) -> Callable[[SimNode], SimNode]:
        def change(node: SimNode) -> SimNode:
            for index in range(4):
                node = node.with_gpu(index, utilization_percent=value, memory_utilization_percent=value)
            return node

        return change

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for value in range(1, 40):
        simulated.edit(both(value))
        while pynvml.nvmlDeviceGetUtilizationRates(gpu()).gpu != value:
            time.sleep(0)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) == 4, "no thread saw a torn state"
