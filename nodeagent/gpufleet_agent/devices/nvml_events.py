"""XID events from NVML's event set. Used by one thread."""

import time
from collections.abc import Callable, Mapping
from ctypes import c_void_p, cast
from typing import Any

import pynvml

from gpufleet_agent.devices.base import DeviceEvent, HardwareError
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, device_error, xid_event
from gpufleet_agent.devices.nvml_device import NvmlDevice


def address(handle: Any) -> int:
    """A device handle as a number. Equal handles are not equal objects to Python."""
    return cast(handle, c_void_p).value or 0


class XidEvents:
    """The event set of one opening of NVML.

    A lost device makes every wait fail at once. It is left out then, and is registered again once it answers.
    """

    def __init__(self, devices: Callable[[], Mapping[str, NvmlDevice]]) -> None:
        """Nothing is asked of NVML yet.

        Args:
            devices: The devices that are known at any time, by UUID. They may become more.
        """
        self._devices = devices
        self._registered: set[str] = set()
        self._refused: set[str] = set()
        self._set: Any = None
        self._failed_before = False

    def wait(self, seconds: float) -> DeviceEvent | None:
        """Block until an XID comes; None after the time, or when no device can report any.

        Raises:
            pynvml.NVMLError: Of a kind that concerns them all.
        """
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
        whose = address(data.device)
        uuid = next((device.uuid for device in devices.values() if address(device.handle) == whose), None)
        return xid_event(uuid, int(data.eventData))

    def close(self) -> None:
        """Free the set; a later `wait` makes a new one."""
        if self._set is not None:
            event_set, self._set = self._set, None
            self._registered = set()
            pynvml.nvmlEventSetFree(event_set)

    def _register(self, devices: Mapping[str, NvmlDevice]) -> None:
        for uuid, device in devices.items():
            # One that doesn't answer might hold up this call, and with it everybody's events.
            if uuid in self._registered or uuid in self._refused or not device.answers:
                continue
            try:
                pynvml.nvmlDeviceRegisterEvents(device.handle, pynvml.nvmlEventTypeXidCriticalError, self._set)
            except pynvml.NVMLError as error:
                if error.value in NEVER_SUPPORTED:
                    self._refused.add(uuid)
                # Else it is tried again before the next wait.
            else:
                self._registered.add(uuid)


def waiting_error(error: pynvml.NVMLError) -> HardwareError:
    """Why waiting failed."""
    return device_error("events", "waiting for events", error)
