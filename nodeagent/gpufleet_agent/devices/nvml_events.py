"""XIDs and other events from NVML's event set. Used by one thread."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from ctypes import c_void_p, cast
from typing import Any

import pynvml

from gpufleet_agent.devices.base import DeviceEvent, HardwareError, Recovery
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, device_error
from gpufleet_agent.devices.nvml_device import NvmlDevice
from gpufleet_agent.devices.nvml_direct import wait_for_event
from gpufleet_agent.devices.xids.policy import XidPolicy, xid_event

_NO_INSTANCE = 2**32 - 1
"""NVML's value for "no particular instance"."""


def address(handle: Any) -> int:
    """Returns a handle's address: equal handles are not equal Python objects."""
    return cast(handle, c_void_p).value or 0


GPU_UNAVAILABLE = "GpuUnavailable"
RECOVERY_ACTION_CHANGED = "RecoveryActionChanged"
_OTHER_TYPES = pynvml.nvmlEventTypeGpuUnavailableError | pynvml.nvmlEventTypeGpuRecoveryAction
"""Not known to drivers before 565."""


class NvmlEvents:
    """The event set of one opening of NVML.

    A lost device makes every wait fail immediately. It is removed then, and registered again once it answers.
    """

    def __init__(
        self, devices: Callable[[], Mapping[str, NvmlDevice]], pending: deque[DeviceEvent], xids: XidPolicy
    ) -> None:
        """Does not call NVML yet.

        Args:
            devices: Returns the devices known now, by UUID.
            pending: Events that were not returned yet: an event of a GPU in MIG mode is repeated for each partition
                that it may be about. Outlives this opening.
            xids: Which XIDs are faults.
        """
        self._devices = devices
        self._xids = xids
        self._registered: set[str] = set()
        self._rejected: set[str] = set()
        self._pending = pending
        self._set: Any = None
        self._known: Mapping[str, NvmlDevice] = {}
        """Devices of the last registration."""
        self._failed_before = False

    def wait(self, seconds: float) -> DeviceEvent | None:
        """Blocks until an event comes; None after the timeout, or if no device can report any.

        Raises:
            pynvml.NVMLError: An error that concerns all devices.
        """
        if self._pending:
            return self._pending.popleft()
        if self._set is None:
            self._set = pynvml.nvmlEventSetCreate()
        devices = self._devices()
        if devices is not self._known or len(self._registered) + len(self._rejected) < len(devices):
            self._known = devices
            self._register(devices)
        if not self._registered:
            time.sleep(seconds)  # waiting on an empty set returns immediately
            return None
        try:
            data = wait_for_event(self._set, int(seconds * 1000))
        except pynvml.NVMLError_GpuIsLost:
            self.close()
            if self._failed_before:
                time.sleep(seconds)  # removing the lost device did not help: avoid a busy loop
            self._failed_before = True
            return None
        self._failed_before = False
        if data is None:
            return None
        uuids = _about(data, devices.values())
        events = (self._event(uuid, int(data.eventType), int(data.eventData)) for uuid in uuids or [None])
        self._pending.extend(event for event in events if event is not None)
        return self._pending.popleft() if self._pending else None

    def _event(self, uuid: str | None, event_type: int, data: int) -> DeviceEvent | None:
        match event_type:
            case pynvml.nvmlEventTypeXidCriticalError:
                return xid_event(uuid, data, self._xids)
            case pynvml.nvmlEventTypeGpuUnavailableError:
                message = "the driver reports that the GPU is unavailable"
                return DeviceEvent(uuid, GPU_UNAVAILABLE, data, message, fault=True, recovery=Recovery.RESET)
            case pynvml.nvmlEventTypeGpuRecoveryAction:
                # The next reading has the new action.
                return DeviceEvent(uuid, RECOVERY_ACTION_CHANGED, data, "recovery action changed", fault=False)
            case _:
                return None

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
            if uuid in self._registered or uuid in self._rejected or not device.answers:
                continue
            try:
                pynvml.nvmlDeviceRegisterEvents(device.reporter, _types(device.reporter), self._set)
            except pynvml.NVMLError as error:
                if error.value in NEVER_SUPPORTED:
                    self._rejected.add(uuid)
                # Otherwise it is retried before the next wait.
            else:
                self._registered.add(uuid)
                reporting.add(address(device.reporter))


def _types(handle: Any) -> int:
    """Returns the event types to register: XIDs, and those others that the device supports."""
    try:
        supported: int = pynvml.nvmlDeviceGetSupportedEventTypes(handle)
    except pynvml.NVMLError as error:
        if error.value not in NEVER_SUPPORTED:
            raise
        supported = 0
    return int(pynvml.nvmlEventTypeXidCriticalError | supported & _OTHER_TYPES)


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
