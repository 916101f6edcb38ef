"""An NVIDIA GPU or partition: its handle, and which values it does not support."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pynvml
import structlog

from gpufleet_agent.devices import nvml_mig as mig
from gpufleet_agent.devices.base import DeviceInfo, DeviceLostError, DeviceReadError
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, NOT_NOW, describe, device_error

log = structlog.get_logger(__name__)

FIELD_VALUES = "field values"
"""The call that reads several fields."""

_OFTEN_UNSUPPORTED = frozenset({"memory NUMA node"})
"""Values that most GPUs do not have. Not worth a line for each GPU."""

_READ_ANYWAY = frozenset({"recovery action"})
"""Fields that are read again although they are not supported: another number in a call costs nothing."""


@dataclass(slots=True)
class NvmlDevice:
    """Used by one thread at a time."""

    uuid: str
    handle: Any
    gpu: Any = None
    """Handle of the GPU that it is a partition of; None if it is a GPU."""
    instances: tuple[int, int] | None = None
    """GPU instance and compute instance of a partition."""
    unsupported: dict[str, int] = field(default_factory=dict)
    """Values that it does not support, with NVML's return code."""
    failures: dict[str, DeviceReadError] = field(default_factory=dict)
    """Optional values whose last call failed, see `ask_optional`."""
    unreadable: list[str] = field(default_factory=list)
    """Optional values whose call failed since `begin_reading`."""
    answered: int = 0
    """Calls that succeeded since `begin_reading`."""
    info: DeviceInfo | None = None
    """Without NVLink peers."""
    far_ends: frozenset[str] = frozenset()
    """Far ends of its NVLinks, see `nvml_links`."""
    links_at: float = 0.0
    """When they were read, in monotonic seconds."""
    seldom: dict[str, tuple[float, Any]] = field(default_factory=dict)
    """Values of `ask_seldom`, with the time at which they were read, in monotonic seconds."""
    utilization_since: int = 0
    """Time of the newest sample of a process's utilization, in microseconds by the driver's clock."""
    events_failed: bool = False
    """Whether its XIDs are not reported because its events could not be registered. Set by the thread of the events."""
    answers: bool = True
    """Whether the last read succeeded."""

    def ask(self, what: str, call: Callable[[Any], Any]) -> Any:
        """Returns the result of `call`; None if the device has no such value.

        Raises:
            HardwareError: As `Hardware.read`.
        """
        handle = self.handle if self.gpu is None else self._handle_for(what)
        if what in self.unsupported or handle is None:
            return None
        try:
            answer = call(handle)
        except pynvml.NVMLError as error:
            if self.gpu is not None and handle is self.handle and error.value == pynvml.NVML_ERROR_NOT_FOUND:
                raise DeviceLostError(self.uuid, f"{what}: the partition is gone") from error
            if error.value in NEVER_SUPPORTED:
                self.unsupported[what] = error.value
                if what not in _OFTEN_UNSUPPORTED:
                    log.info("value not supported", uuid=self.uuid, what=what, why=describe(error))
                return None
            if error.value in NOT_NOW:
                return None
            raise device_error(self.uuid, what, error) from error
        self.answered += 1
        return answer

    @property
    def reporter(self) -> Any:
        """Handle of the GPU that reports this device's events."""
        return self.handle if self.gpu is None else self.gpu

    def _handle_for(self, what: str) -> Any:
        """Returns the handle to query a partition with; None if partitions have no such value."""
        if what in mig.OWN:
            return self.handle
        return self.gpu if what in mig.OF_ITS_GPU else None

    def ask_optional(self, what: str, call: Callable[[Any], Any]) -> Any:
        """As `ask`, but an unspecific error counts as no value.

        Some drivers answer a single call with "unknown error" for as long as they run. That must not fail the whole
        reading: the value is absent and listed in `unreadable`.

        Raises:
            HardwareError: As `Hardware.read`, except `DeviceReadError`.
        """
        try:
            value = self.ask(what, call)
        except DeviceReadError as error:
            self.unreadable.append(what)
            if what not in self.failures:
                log.warning("value not readable", uuid=self.uuid, what=what, error=str(error))
            self.failures[what] = error
            return None
        if self.failures:
            self.failures.pop(what, None)
        return value

    def ask_seldom(self, what: str, call: Callable[[Any], Any], seconds: float) -> Any:
        """As `ask_optional`, but returns the last value for `seconds`. A call that fails is made again each time."""
        now = time.monotonic()
        known = self.seldom.get(what)
        if known is not None and now - known[0] < seconds:
            return known[1]
        value = self.ask_optional(what, call)
        if what in self.failures:
            self.seldom.pop(what, None)
        else:
            self.seldom[what] = now, value
        return value

    def ask_fields(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """Reads NVML fields by number, as `ask_optional` each, with one call. Absent ones are missing."""
        wanted = [what for what in numbers if what not in self.unsupported]
        if not wanted:
            return {}
        ids = [numbers[what] for what in wanted]
        answers = self.ask_optional(FIELD_VALUES, lambda handle: pynvml.nvmlDeviceGetFieldValues(handle, ids))
        if answers is None:
            return {}
        found: dict[str, Any] = {}
        for what, answer in zip(wanted, answers, strict=True):
            if answer.nvmlReturn == pynvml.NVML_SUCCESS:
                found[what] = int(answer.value.uiVal)
            elif answer.nvmlReturn != pynvml.NVML_ERROR_NOT_SUPPORTED or what not in _READ_ANYWAY:
                self.ask_optional(what, partial(_fail, code=answer.nvmlReturn))
        return found

    def begin_reading(self) -> None:
        """Must be called before the first query of a reading."""
        self.unreadable, self.answered = [], 0

    def finish_reading(self) -> tuple[str, ...]:
        """Returns the values of the reading whose call failed, sorted.

        Raises:
            DeviceReadError: Calls failed and none succeeded.
        """
        if self.unreadable and not self.answered:
            raise self.failures[self.unreadable[-1]]
        return tuple(sorted(self.unreadable))


def _fail(handle: Any, *, code: int) -> None:  # noqa: ARG001 - called as a query of the device
    raise pynvml.NVMLError(code)
