"""Calls of NVML that are made every second, without pynvml's wrappers.

pynvml allocates structs for each call, whose attributes are read by functions in Python, and raises an error where a
wait ends by its timeout.
"""

from collections.abc import Sequence
from ctypes import Structure, byref
from typing import Any

import pynvml


class _FieldValue(Structure):
    _fields_ = pynvml.c_nvmlFieldValue_t._fields_


class FieldReader:
    """Reads fields with one call, always into the same memory. Used by one thread at a time.

    Args:
        numbers: NVML's numbers of the fields.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._values: Any = (_FieldValue * len(numbers))(*(_FieldValue(number) for number in numbers))
        self._arguments = len(numbers), byref(self._values)

    def __call__(self, handle: Any) -> Any:
        """Returns a `c_nvmlFieldValue_t` for each field, valid until the next call.

        Raises:
            pynvml.NVMLError: What NVML returned.
        """
        _check(_function("nvmlDeviceGetFieldValues")(handle, *self._arguments))
        return self._values


def wait_for_event(event_set: Any, milliseconds: int) -> Any:
    """Waits for an event; returns its `c_nvmlEventData_t`, or None after the timeout.

    Raises:
        pynvml.NVMLError: What NVML returned.
    """
    data = pynvml.c_nvmlEventData_t()
    code = _function("nvmlEventSetWait_v2")(event_set, byref(data), milliseconds)
    if code == pynvml.NVML_ERROR_TIMEOUT:
        return None
    _check(code)
    return data


def _function(name: str) -> Any:
    try:
        return getattr(pynvml.nvmlLib, name)
    except AttributeError:
        code = pynvml.NVML_ERROR_UNINITIALIZED if pynvml.nvmlLib is None else pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
        raise pynvml.NVMLError(code) from None


def _check(code: int) -> None:
    if code != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(code)
