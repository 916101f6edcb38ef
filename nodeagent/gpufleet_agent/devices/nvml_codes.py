"""Maps NVML's return codes and XIDs to errors and events."""

from types import MappingProxyType

import pynvml

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceError,
    DeviceEvent,
    DeviceLostError,
    DeviceReadError,
    DeviceResetRequiredError,
    DriverNotLoadedError,
    HardwareError,
    HardwareUnavailableError,
    LibraryMismatchError,
    Recovery,
)

NEVER_SUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
    }
)
"""The device, driver or container does not support the value: not worth another query."""

NOT_NOW = frozenset(
    {
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_TIMEOUT,
        pynvml.NVML_ERROR_IN_USE,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_NOT_READY,
        pynvml.NVML_ERROR_INSUFFICIENT_SIZE,  # a list that grew between two calls
    }
)
"""No value this time; the device is all right."""

_DRIVER_GONE = frozenset({pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})


def opening_error(error: pynvml.NVMLError) -> HardwareError:
    """Returns the error for a failed opening. All but a library mismatch are worth retrying."""
    if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return LibraryMismatchError(f"NVML: {error}: the driver was upgraded while this process was running")
    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return HardwareUnavailableError("NVML: libnvidia-ml.so.1 not found: no NVIDIA driver in this container")
    if error.value in _DRIVER_GONE:
        return DriverNotLoadedError(f"NVML: {error}")
    return HardwareUnavailableError(f"NVML: {error}")


def device_error(uuid: str, what: str, error: pynvml.NVMLError) -> HardwareError:
    """Returns the error for a failed query of `what`."""
    code = error.value
    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH or code in _DRIVER_GONE:
        return opening_error(error)
    kinds: dict[int, type[DeviceError]] = {
        pynvml.NVML_ERROR_GPU_IS_LOST: DeviceLostError,
        pynvml.NVML_ERROR_RESET_REQUIRED: DeviceResetRequiredError,
        # A container that lost its device nodes gets this from every device.
        pynvml.NVML_ERROR_UNKNOWN: DeviceAccessError,
    }
    return kinds.get(code, DeviceReadError)(uuid, f"{what}: {error}")


XID_ERROR = "XidError"

APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""XIDs that a faulty application causes on a working device."""

RESET_XIDS = frozenset({46, 48, 62, 64, 74, 79, 95, 119, 120, 140, 143})
"""XIDs after which the device must be reset. Others may pass without action."""

XIDS = MappingProxyType(
    {
        13: "graphics engine exception",
        31: "memory page fault",
        43: "GPU stopped processing",
        45: "preemptive cleanup",
        46: "GPU stopped processing commands",
        48: "double-bit ECC error",
        61: "internal microcontroller breakpoint",
        62: "internal microcontroller halt",
        63: "row remapping or page retirement recorded",
        64: "row remapping or page retirement failed",
        68: "video processor exception",
        74: "NVLink error",
        79: "GPU has fallen off the bus",
        92: "high rate of single-bit ECC errors",
        94: "contained ECC error",
        95: "uncontained ECC error",
        109: "context switch timeout",
        119: "GSP firmware did not answer",
        120: "GSP firmware error",
        140: "unrecovered ECC error",
        143: "initialization failed",
    }
)
"""Descriptions; not every XID has one."""


def xid_event(uuid: str | None, code: int) -> DeviceEvent:
    """Returns the event for an XID."""
    description = f"XID {code}: {XIDS[code]}" if code in XIDS else f"XID {code}"
    recovery = Recovery.RESET if code in RESET_XIDS else Recovery.AUTOMATIC
    return DeviceEvent(uuid, XID_ERROR, code, description, fault=code not in APPLICATION_XIDS, recovery=recovery)
