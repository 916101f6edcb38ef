"""XIDs and other events from NVML's event set. Used by one thread."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from ctypes import c_void_p, cast
from typing import Any

import pynvml
import structlog

from gpufleet_agent.devices.base import DeviceEvent, HardwareError, Recovery
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, concerns_call, describe, device_error
from gpufleet_agent.devices.nvml_device import NvmlDevice
from gpufleet_agent.devices.xids.policy import XidPolicy, xid_event

log = structlog.get_logger(__name__)

_NO_INSTANCE = 2**32 - 1
"""NVML's value for "no particular instance"."""

_MAX_LOST_WAITS = 5
"""Maximum number of consecutive failed waits. A lost device fails fewer: its reads fail too, and it is not registered
again."""


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
        self._lost_waits = 0
        self._unregistered: set[str] = set()
        """Devices whose registration has failed, and was logged."""

    def wait(self, seconds: float) -> DeviceEvent | None:
        """Blocks until an event comes; None after the timeout, or if no device can report any.

        Raises:
            pynvml.NVMLError: An error that concerns all devices.
        """
        if self._pending:
            return self._pending.popleft()
        devices = self._devices()
        if self._set is None:
            self._set = _create_set(devices.values())
        if devices is not self._known or len(self._registered) + len(self._rejected) < len(devices):
            self._known = devices
            self._register(devices)
        if not self._registered:
            time.sleep(seconds)  # waiting on an empty set returns immediately
            return None
        try:
            data = pynvml.nvmlEventSetWait_v2(self._set, int(seconds * 1000))
        except pynvml.NVMLError_Timeout:
            self._lost_waits = 0
            return None
        except pynvml.NVMLError_GpuIsLost as error:
            self.close()
            self._lost_waits += 1
            if self._lost_waits > 1:
                time.sleep(seconds)  # removing the lost device did not help: avoid a busy loop
            if self._lost_waits == _MAX_LOST_WAITS:
                log.warning("events not received: XIDs are not seen", error=describe(error))
            return None
        self._lost_waits = 0
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
                device.events_failed = False
                self._registered.add(uuid)  # by another partition of the same GPU
                continue
            # A device that does not answer might block this call, and with it the events of all devices.
            if uuid in self._registered or uuid in self._rejected or not device.answers:
                continue
            try:
                types, reason = _types(device.reporter)
                pynvml.nvmlDeviceRegisterEvents(device.reporter, types, self._set)
            except pynvml.NVMLError as error:
                self._not_registered(device, error)
            else:
                device.events_failed = False
                self._registered.add(uuid)
                reporting.add(address(device.reporter))
                if reason is not None:
                    log.warning("event types not readable: only XIDs are seen", uuid=uuid, error=describe(reason))
                if uuid in self._unregistered:
                    self._unregistered.remove(uuid)
                    log.info("events registered", uuid=uuid)

    def _not_registered(self, device: NvmlDevice, error: pynvml.NVMLError) -> None:
        uuid, retried = device.uuid, error.value not in NEVER_SUPPORTED  # before the next wait
        device.events_failed = retried
        if not retried:
            self._rejected.add(uuid)
        if uuid not in self._unregistered:
            self._unregistered.add(uuid)
            log.warning("events not registered: XIDs are not seen", uuid=uuid, error=describe(error), retried=retried)


def _types(handle: Any) -> tuple[int, pynvml.NVMLError | None]:
    """Returns the event types to register: XIDs, and those others that the device supports; and why these are unknown.

    Raises:
        pynvml.NVMLError: The device is lost, or the driver gone.
    """
    supported, reason = 0, None
    try:
        supported = pynvml.nvmlDeviceGetSupportedEventTypes(handle)
    except pynvml.NVMLError as error:
        if not concerns_call(error):
            raise
        reason = None if error.value in NEVER_SUPPORTED else error
    return int(pynvml.nvmlEventTypeXidCriticalError | supported & _OTHER_TYPES), reason


def _create_set(devices: Iterable[NvmlDevice]) -> Any:
    try:
        return pynvml.nvmlEventSetCreate()
    except pynvml.NVMLError:
        for device in devices:
            device.events_failed = True
        raise


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
