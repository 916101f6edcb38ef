"""An NVIDIA GPU or partition: its handle, and which values it does not support."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml
import structlog

from gpufleet_agent.devices import nvml_mig as mig
from gpufleet_agent.devices.base import DeviceInfo, DeviceLostError, DeviceReadError
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, NOT_NOW, device_error

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class NvmlDevice:
    """Used by one thread, its own."""

    uuid: str
    handle: Any
    gpu: Any = None
    """Handle of the GPU that it is a partition of; None if it is a GPU."""
    instances: tuple[int, int] | None = None
    """GPU instance and compute instance of a partition."""
    unsupported: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    """Optional values that failed in the last reading, see `ask_optional`."""
    info: DeviceInfo | None = None
    """Without NVLink peers."""
    far_ends: frozenset[str] = frozenset()
    """Far ends of its NVLinks, see `nvml_links`."""
    links_at: float = 0.0
    """When they were read, in monotonic seconds."""
    answers: bool = True
    """Whether the last read succeeded."""

    def ask(self, what: str, call: Callable[[Any], Any]) -> Any:
        """Returns the result of `call`; None if the device has no such value.

        Raises:
            HardwareError: As `Hardware.read`.
        """
        handle = self._handle_for(what)
        if what in self.unsupported or handle is None:
            return None
        try:
            return call(handle)
        except pynvml.NVMLError as error:
            if self.gpu is not None and error.value == pynvml.NVML_ERROR_NOT_FOUND:
                raise DeviceLostError(self.uuid, f"{what}: the partition is gone") from error
            if error.value in NEVER_SUPPORTED:
                self.unsupported.add(what)
                log.info("value not supported", uuid=self.uuid, what=what, why=str(error))
                return None
            if error.value in NOT_NOW:
                return None
            raise device_error(self.uuid, what, error) from error

    @property
    def reporter(self) -> Any:
        """Handle of the GPU that reports this device's events."""
        return self.handle if self.gpu is None else self.gpu

    def _handle_for(self, what: str) -> Any:
        """Returns the handle to query; None if partitions have no such value."""
        if self.gpu is None or what in mig.OWN:
            return self.handle
        return self.gpu if what in mig.OF_ITS_GPU else None

    def ask_optional(self, what: str, call: Callable[[Any], Any]) -> Any:
        """As `ask`, but an unspecific error counts as no value.

        Some drivers answer a single call with "unknown error" for as long as they run. That must not fail the whole
        reading.

        Raises:
            HardwareError: As `Hardware.read`, except `DeviceReadError`.
        """
        try:
            value = self.ask(what, call)
        except DeviceReadError as error:
            if what not in self.failing:
                self.failing.add(what)
                log.warning("value not readable", uuid=self.uuid, what=what, error=str(error))
            return None
        self.failing.discard(what)
        return value
