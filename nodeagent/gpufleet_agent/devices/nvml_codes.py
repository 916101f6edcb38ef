"""Maps NVML's return codes to errors."""

import pynvml

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceError,
    DeviceLostError,
    DeviceReadError,
    DeviceResetRequiredError,
    DriverNotLoadedError,
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
_CONCERN_DRIVER = _DRIVER_GONE | {pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}

_CONCERN_DEVICE = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})


def describe(error: pynvml.NVMLError) -> str:
    """Returns NVML's words with the return code, because several codes have the same words."""
    return f"{error} ({error.value})"


def concerns_driver(error: pynvml.NVMLError) -> bool:
    """Returns whether every other call would fail as well: the driver is unloaded, or does not match the library."""
    return error.value in _CONCERN_DRIVER


def concerns_call(error: pynvml.NVMLError) -> bool:
    """Returns whether only this call failed: the code names neither the driver nor a lost device."""
    return not concerns_driver(error) and error.value not in _CONCERN_DEVICE


def opening_error(error: pynvml.NVMLError) -> HardwareError:
    """Returns the error for a failed opening. All but a library mismatch are worth retrying."""
    if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return LibraryMismatchError(f"NVML: {describe(error)}: the driver was upgraded while this process was running")
    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return HardwareUnavailableError("NVML: libnvidia-ml.so.1 not found: no NVIDIA driver in this container")
    if error.value in _DRIVER_GONE:
        return DriverNotLoadedError(f"NVML: {describe(error)}")
    return HardwareUnavailableError(f"NVML: {describe(error)}")


def device_error(uuid: str, what: str, error: pynvml.NVMLError) -> HardwareError:
    """Returns the error for a failed query of `what`."""
    code = error.value
    if concerns_driver(error):
        return opening_error(error)
    kinds: dict[int, type[DeviceError]] = {
        pynvml.NVML_ERROR_GPU_IS_LOST: DeviceLostError,
        pynvml.NVML_ERROR_RESET_REQUIRED: DeviceResetRequiredError,
        # A container that lost its device nodes gets this from every device.
        pynvml.NVML_ERROR_UNKNOWN: DeviceAccessError,
    }
    return kinds.get(code, DeviceReadError)(uuid, f"{what}: {describe(error)}")
