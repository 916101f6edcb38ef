"""What NVML's return codes and XIDs mean for us."""

from types import MappingProxyType

import pynvml

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceError,
    DeviceLostError,
    DeviceReadError,
    DeviceResetRequiredError,
    HardwareError,
    HardwareUnavailableError,
    LibraryMismatchError,
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
"""The device, this driver or this container will not tell this value: not worth asking again."""

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
"""No value this time, and nothing wrong with the device."""

_DRIVER_GONE = frozenset({pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})


def opening_error(error: pynvml.NVMLError) -> HardwareError:
    """Why NVML could not be opened. Whatever it is, it may come back, save for a library of another version."""
    if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return LibraryMismatchError(f"NVML: {error}: the driver was upgraded beneath this process")
    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return HardwareUnavailableError("NVML: libnvidia-ml.so.1 not found: no NVIDIA driver in this container")
    return HardwareUnavailableError(f"NVML: {error}")


def device_error(uuid: str, what: str, error: pynvml.NVMLError) -> HardwareError:
    """Why a device did not tell `what`."""
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


APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""XIDs that a faulty program causes on a sound device."""

_XIDS = MappingProxyType(
    {
        13: "graphics engine exception",
        31: "memory page fault",
        43: "GPU stopped processing",
        45: "preemptive cleanup",
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
    }
)


def xid_message(code: int) -> str:
    """An XID in words."""
    return f"XID {code}: {_XIDS[code]}" if code in _XIDS else f"XID {code}"
