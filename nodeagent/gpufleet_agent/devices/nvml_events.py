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
"""NVML's value for "no particular instance"."""


def address(handle: Any) -> int:
    """Returns a handle's address: equal handles are not equal Python objects."""
    return cast(handle, c_void_p).value or 0


class XidEvents:
    """The event set of one opening of NVML.

    A lost device makes every wait fail immediately. It is removed then, and registered again once it answers.
    """

    def __init__(self, devices: Callable[[], Mapping[str, NvmlDevice]], pending: deque[DeviceEvent]) -> None:
        """Does not call NVML yet.

        Args:
            devices: Returns the devices known now, by UUID.
            pending: Events that were not returned yet: an event of a GPU in MIG mode is repeated for each partition
                that it may be about. Outlives this opening.
        """
        self._devices = devices
        self._registered: set[str] = set()
        self._refused: set[str] = set()
        self._pending = pending
        self._set: Any = None
        self._failed_before = False

    def wait(self, seconds: float) -> DeviceEvent | None:
        """Blocks until an XID comes; None after the timeout, or if no device can report any.

        Raises:
            pynvml.NVMLError: An error that concerns all devices.
        """
        if self._pending:
            return self._pending.popleft()
        if self._set is None:
            self._set = pynvml.nvmlEventSetCreate()
        devices = self._devices()
        self._register(devices)
        if not self._registered:
            time.sleep(seconds)  # waiting on an empty set returns immediately
            return None
        try:
            data = pynvml.nvmlEventSetWait_v2(self._set, int(seconds * 1000))
        except pynvml.NVMLError_Timeout:
            self._failed_before = False
            return None
        except pynvml.NVMLError_GpuIsLost:
            self.close()
            if self._failed_before:
                time.sleep(seconds)  # removing the lost device did not help: avoid a busy loop
            self._failed_before = True
            return None
        self._failed_before = False
        if data.eventType != pynvml.nvmlEventTypeXidCriticalError:
            return None
        uuids = _about(data, devices.values())
        self._pending.extend(xid_event(uuid, int(data.eventData)) for uuid in uuids or [None])
        return self._pending.popleft()

    def close(self) -> None:
        """Frees the set; a later `wait` creates a new one."""
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
            # A device that does not answer might block this call, and with it the events of all devices.
            if uuid in self._registered or uuid in self._refused or not device.answers:
                continue
            try:
                pynvml.nvmlDeviceRegisterEvents(device.reporter, pynvml.nvmlEventTypeXidCriticalError, self._set)
            except pynvml.NVMLError as error:
                if error.value in NEVER_SUPPORTED:
                    self._refused.add(uuid)
                # Otherwise it is retried before the next wait.
            else:
                self._registered.add(uuid)
                reporting.add(address(device.reporter))


def _about(data: Any, devices: Iterable[NvmlDevice]) -> list[str | None]:
    """Returns the UUIDs that an event is about: the GPU, the partitions that it names, or all partitions."""
    found = [device for device in devices if address(device.reporter) == address(data.device)]
    named = [device for device in found if _names(data, device.instances)]
    return [device.uuid for device in named or found]


def _names(data: Any, instances: tuple[int, int] | None) -> bool:
    if instances is None or data.gpuInstanceId != instances[0]:
        return False
    return data.computeInstanceId in (instances[1], _NO_INSTANCE)


def waiting_error(error: pynvml.NVMLError) -> HardwareError:
    """Returns the error for a failed wait."""
    return device_error("events", "waiting for events", error)
