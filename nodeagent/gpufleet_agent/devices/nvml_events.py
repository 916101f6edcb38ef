"""XID events from NVML's event set. Used by one thread."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from ctypes import c_void_p, cast
from typing import Any

import pynvml

from gpufleet_agent.devices.base import DeviceEvent, HardwareError
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, device_error, xid_event
from gpufleet_agent.devices.nvml_device import NvmlDevice

_NO_INSTANCE = 2**32 - 1
"""NVML's word for "none in particular"."""


def address(handle: Any) -> int:
    """A device handle as a number. Equal handles are not equal objects to Python."""
    return cast(handle, c_void_p).value or 0


class XidEvents:
    """The event set of one opening of NVML.

    A lost device makes every wait fail at once. It is left out then, and is registered again once it answers.
    """

    def __init__(self, devices: Callable[[], Mapping[str, NvmlDevice]], told: deque[DeviceEvent]) -> None:
        """Nothing is asked of NVML yet.

        Args:
            devices: The devices that are known at any time, by UUID. They may become more.
            told: What came and wasn't fetched yet: of a GPU that is divided, the same for each partition that it may be
                about. Outlives this opening.
        """
        self._devices = devices
        self._registered: set[str] = set()
        self._refused: set[str] = set()
        self._told = told
        self._set: Any = None
        self._failed_before = False

    def wait(self, seconds: float) -> DeviceEvent | None:
        """Block until an XID comes; None after the time, or when no device can report any.

        Raises:
            pynvml.NVMLError: Of a kind that concerns them all.
        """
        if self._told:
            return self._told.popleft()
        if self._set is None:
            self._set = pynvml.nvmlEventSetCreate()
        devices = self._devices()
        self._register(devices)
        if not self._registered:
            time.sleep(seconds)  # an empty set doesn't wait
            return None
        try:
            data = pynvml.nvmlEventSetWait_v2(self._set, int(seconds * 1000))
        except pynvml.NVMLError_Timeout:
            self._failed_before = False
            return None
        except pynvml.NVMLError_GpuIsLost:
            self.close()
            if self._failed_before:
                time.sleep(seconds)  # leaving out what fails did not help: not a busy loop at least
            self._failed_before = True
            return None
        self._failed_before = False
        if data.eventType != pynvml.nvmlEventTypeXidCriticalError:
            return None
        uuids = _about(data, devices.values())
        self._told.extend(xid_event(uuid, int(data.eventData)) for uuid in uuids or [None])
        return self._told.popleft()

    def close(self) -> None:
        """Free the set; a later `wait` makes a new one."""
        if self._set is not None:
            event_set, self._set = self._set, None
            self._registered = set()
            pynvml.nvmlEventSetFree(event_set)

    def _register(self, devices: Mapping[str, NvmlDevice]) -> None:
        reporting = {address(devices[uuid].reporter) for uuid in self._registered if uuid in devices}
        for uuid, device in devices.items():
            if address(device.reporter) in reporting:
                self._registered.add(uuid)  # by another partition of the same GPU
                continue
            # One that doesn't answer might hold up this call, and with it everybody's events.
            if uuid in self._registered or uuid in self._refused or not device.answers:
                continue
            try:
                pynvml.nvmlDeviceRegisterEvents(device.reporter, pynvml.nvmlEventTypeXidCriticalError, self._set)
            except pynvml.NVMLError as error:
                if error.value in NEVER_SUPPORTED:
                    self._refused.add(uuid)
                # Else it is tried again before the next wait.
            else:
                self._registered.add(uuid)
                reporting.add(address(device.reporter))


def _about(data: Any, devices: Iterable[NvmlDevice]) -> list[str | None]:
    """The devices that an event is about: the GPU, or those of its partitions that the event names, or all of them."""
    found = [device for device in devices if address(device.reporter) == address(data.device)]
    named = [device for device in found if _names(data, device.instances)]
    return [device.uuid for device in named or found]


def _names(data: Any, instances: tuple[int, int] | None) -> bool:
    if instances is None or data.gpuInstanceId != instances[0]:
        return False
    return data.computeInstanceId in (instances[1], _NO_INSTANCE)


def waiting_error(error: pynvml.NVMLError) -> HardwareError:
    """Why waiting failed."""
    return device_error("events", "waiting for events", error)
