"""How NVML writes a value down, and the value. Sentinels and versions of calls end here."""

from types import MappingProxyType
from typing import Any

import pynvml

from gpufleet_agent.devices.base import Number, ThrottleReason

_MIB = 2**20
_NUMA_WORDS = 16
"""Room for 1024 NUMA nodes."""
_SENTINELS = frozenset({-1, 2**32 - 1, 2**64 - 1})
"""NVML_VALUE_NOT_AVAILABLE, as it looks in each of NVML's integers."""

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
"""The bit for idling is left out on purpose: it is set whenever nothing runs."""


def known(value: Any) -> Number | None:
    """The number, unless NVML says by a sentinel that there is none."""
    return None if value is None or value in _SENTINELS else value


def first_known(values: Any) -> Number | None:
    """The same of the first of several numbers."""
    return None if values is None else known(values[0])


def flag(value: Any) -> bool | None:
    """A number that means yes or no."""
    number = known(value)
    return None if number is None else bool(number)


def mib(size: int) -> Number | None:
    """Bytes in MiB."""
    number = known(size)
    return None if number is None else number / _MIB


def throttle_reasons(bits: Any) -> frozenset[ThrottleReason] | None:
    """NVML's bits as a set. Bits that mean nothing to us are left out."""
    number = known(bits)
    if number is None:
        return None
    return frozenset(reason for bit, reason in _THROTTLING if int(number) & bit)


def memory(handle: Any) -> Any:
    """Memory of a device, without what the driver reserves where the driver tells the two apart."""
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return pynvml.nvmlDeviceGetMemoryInfo(handle)  # drivers before 510, which count reserved as used


def temperature(handle: Any) -> Any:
    """Temperature of the GPU in C."""
    try:
        return pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)  # drivers before 560


def memory_temperature(handle: Any) -> Any:
    """Temperature of the memory in C."""
    return _field(handle, pynvml.NVML_FI_DEV_MEMORY_TEMP)


def sm_clock(handle: Any) -> Any:
    """Clock of the multiprocessors in MHz."""
    return pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)


def memory_clock(handle: Any) -> Any:
    """Clock of the memory in MHz."""
    return pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)


def throttling(handle: Any) -> Any:
    """NVML's bits for what holds the clocks down."""
    try:
        return pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except pynvml.NVMLError_FunctionNotFound:
        return pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)  # drivers before 535


def ecc_corrected(handle: Any) -> Any:
    """Corrected memory errors since the last reset."""
    return pynvml.nvmlDeviceGetTotalEccErrors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_VOLATILE_ECC)


def ecc_uncorrected(handle: Any) -> Any:
    """The same of those that could not be corrected."""
    return pynvml.nvmlDeviceGetTotalEccErrors(
        handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    )


def numa_node(handle: Any) -> int | None:
    """The one NUMA node nearest to the device. Several, or none, is none."""
    words = pynvml.nvmlDeviceGetMemoryAffinity(handle, _NUMA_WORDS, pynvml.NVML_AFFINITY_SCOPE_NODE)
    nodes = [64 * place + bit for place, word in enumerate(words) for bit in range(64) if word >> bit & 1]
    return nodes[0] if len(nodes) == 1 else None


def _field(handle: Any, number: int) -> int:
    (value,) = pynvml.nvmlDeviceGetFieldValues(handle, [number])
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return int(value.value.uiVal)
