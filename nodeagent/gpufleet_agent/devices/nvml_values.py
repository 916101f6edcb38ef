"""Converts NVML's values. Handles sentinels and versions of calls."""

from functools import lru_cache
from types import MappingProxyType
from typing import Any

import pynvml

from gpufleet_agent.devices.base import Number, RecoveryAction, ThrottleReason
from gpufleet_common.units import BYTES_PER_MIB

_NUMA_WORDS = 16
"""64 bits each: 1024 NUMA nodes."""
_SENTINELS = frozenset({-1, 2**32 - 1, 2**64 - 1})
"""NVML_VALUE_NOT_AVAILABLE in each of NVML's integer types."""

ARCHITECTURES = MappingProxyType(
    {
        pynvml.NVML_DEVICE_ARCH_KEPLER: "Kepler",
        pynvml.NVML_DEVICE_ARCH_MAXWELL: "Maxwell",
        pynvml.NVML_DEVICE_ARCH_PASCAL: "Pascal",
        pynvml.NVML_DEVICE_ARCH_VOLTA: "Volta",
        pynvml.NVML_DEVICE_ARCH_TURING: "Turing",
        pynvml.NVML_DEVICE_ARCH_AMPERE: "Ampere",
        pynvml.NVML_DEVICE_ARCH_ADA: "Ada",
        pynvml.NVML_DEVICE_ARCH_HOPPER: "Hopper",
        pynvml.NVML_DEVICE_ARCH_BLACKWELL: "Blackwell",
        pynvml.NVML_DEVICE_ARCH_RUBIN: "Rubin",
    }
)

CONTROL_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
"""Common to all GPUs of a node. Not every node has all of them: the driver creates some on first use."""

_THROTTLING = (
    (pynvml.nvmlClocksEventReasonApplicationsClocksSetting, ThrottleReason.APPLICATION_CLOCKS),
    (pynvml.nvmlClocksEventReasonSwPowerCap, ThrottleReason.SW_POWER_CAP),
    (pynvml.nvmlClocksEventReasonHwSlowdown, ThrottleReason.HW_SLOWDOWN),
    (pynvml.nvmlClocksEventReasonSyncBoost, ThrottleReason.SYNC_BOOST),
    (pynvml.nvmlClocksEventReasonSwThermalSlowdown, ThrottleReason.SW_THERMAL_SLOWDOWN),
    (pynvml.nvmlClocksEventReasonHwThermalSlowdown, ThrottleReason.HW_THERMAL_SLOWDOWN),
    (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, ThrottleReason.HW_POWER_BRAKE_SLOWDOWN),
    (pynvml.nvmlClocksEventReasonDisplayClockSetting, ThrottleReason.DISPLAY_CLOCKS),
)
"""Without the idle bit, which is set whenever nothing runs."""


_RECOVERY_ACTIONS = MappingProxyType(
    {
        pynvml.NVML_GPU_RECOVERY_ACTION_NONE: RecoveryAction.NONE,
        pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: RecoveryAction.RESET,
        pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: RecoveryAction.REBOOT,
        pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P: RecoveryAction.DRAIN_PEERS,
        pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: RecoveryAction.DRAIN_AND_RESET,
        pynvml.NVML_GPU_RECOVERY_ACTION_RECOVER_IMEX_DOMAIN: RecoveryAction.RECOVER_DOMAIN,
        pynvml.NVML_GPU_RECOVERY_ACTION_BUS_RESET: RecoveryAction.BUS_RESET,
        pynvml.NVML_GPU_RECOVERY_ACTION_SYSTEM_REBOOT: RecoveryAction.REBOOT,
    }
)

FIELDS = MappingProxyType(
    {
        "memory temperature": pynvml.NVML_FI_DEV_MEMORY_TEMP,
        "recovery action": pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
    }
)
"""Values that NVML has as numbered fields. The temperature is in C."""


def known(value: Any) -> Number | None:
    """Returns the number; None if it is a sentinel."""
    return None if value is None or value in _SENTINELS else value


def first_known(values: Any) -> Number | None:
    """Returns the first of several numbers; None if it is a sentinel."""
    return None if values is None else known(values[0])


def flag(value: Any) -> bool | None:
    """Returns a number as a bool; None if it is a sentinel."""
    number = known(value)
    return None if number is None else bool(number)


def mib(size: int) -> Number | None:
    """Converts bytes to MiB."""
    number = known(size)
    return None if number is None else number / BYTES_PER_MIB


def memory_mib(memory: Any) -> tuple[Number | None, Number | None, Number | None]:
    """Returns the total, used and reserved memory of NVML's struct in MiB; None each if it is not reported.

    A total of 0 is no memory. Drivers before 510 count reserved memory as used.
    """
    total = None if memory is None else memory.total
    if not total:
        return None, None, None
    reserved = getattr(memory, "reserved", None)
    return mib(total), mib(memory.used), None if reserved is None else mib(reserved)


def is_gpu_node(path: str) -> bool:
    """Returns whether a device node is needed to query a GPU."""
    return path == CONTROL_NODES[0] or path.removeprefix("/dev/nvidia").isdecimal()


def throttle_reasons(bits: Any) -> frozenset[ThrottleReason] | None:
    """Converts NVML's bits. Unknown bits are ignored."""
    number = known(bits)
    return None if number is None else _throttle_reasons(int(number))


@lru_cache(maxsize=64)
def _throttle_reasons(bits: int) -> frozenset[ThrottleReason]:
    return frozenset(reason for bit, reason in _THROTTLING if bits & bit)


def device_nodes(minor: int | None) -> tuple[str, ...]:
    """Returns the device nodes of the GPU with this minor number, which may differ from its index."""
    return () if minor is None else (f"/dev/nvidia{minor}", *CONTROL_NODES)


def memory(handle: Any) -> Any:
    """Reads the memory of a device, without the memory that the driver reserves if the driver distinguishes it."""
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return pynvml.nvmlDeviceGetMemoryInfo(handle)  # drivers before 510, which count reserved as used


def temperature(handle: Any) -> Any:
    """Reads the temperature of the GPU in C."""
    try:
        return pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)  # drivers before 560


def sm_clock(handle: Any) -> Any:
    """Reads the SM clock in MHz."""
    return pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)


def memory_clock(handle: Any) -> Any:
    """Reads the memory clock in MHz."""
    return pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)


def throttling(handle: Any) -> Any:
    """Reads NVML's throttle reason bits."""
    try:
        return pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except pynvml.NVMLError_FunctionNotFound:
        return pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)  # drivers before 535


def ecc_corrected(handle: Any) -> Any:
    """Reads the number of corrected memory errors since the last reset."""
    return pynvml.nvmlDeviceGetTotalEccErrors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_VOLATILE_ECC)


def ecc_uncorrected(handle: Any) -> Any:
    """Reads the number of uncorrected memory errors since the last reset."""
    return pynvml.nvmlDeviceGetTotalEccErrors(
        handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    )


def numa_node(handle: Any) -> int | None:
    """Reads the NUMA node nearest to the device; None if there is not exactly one."""
    words = pynvml.nvmlDeviceGetMemoryAffinity(handle, _NUMA_WORDS, pynvml.NVML_AFFINITY_SCOPE_NODE)
    nodes = [64 * index + bit for index, word in enumerate(words) for bit in range(64) if word >> bit & 1]
    return nodes[0] if len(nodes) == 1 else None


def recovery_action(number: Any) -> RecoveryAction | None:
    """Converts NVML's number; None if it is absent or a sentinel."""
    value = known(number)
    return None if value is None else _RECOVERY_ACTIONS.get(int(value), RecoveryAction.UNKNOWN)
