"""One NVIDIA GPU or partition of one: its handle, and what it has been found not to tell."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml
import structlog

from gpufleet_agent.devices import nvml_mig as mig
from gpufleet_agent.devices.base import DeviceInfo, DeviceLostError, DeviceReadError
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, NOT_NOW, device_error

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class NvmlDevice:
    """Asked by one thread, its own."""

    uuid: str
    handle: Any
    gpu: Any = None
    """Handle of the GPU that it is a partition of; None: it is a GPU itself."""
    instances: tuple[int, int] | None = None
    """GPU instance and compute instance of a partition."""
    unsupported: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    """What the last reading had to do without, see `ask_extra`."""
    info: DeviceInfo | None = None
    """Without peers."""
    far_ends: frozenset[str] = frozenset()
    """What its NVLinks lead to, see `nvml_links`."""
    links_at: float = 0.0
    """When it was asked for them, in monotonic seconds."""
    answers: bool = True
    """Whether the last read succeeded."""

    def ask(self, what: str, call: Callable[[Any], Any]) -> Any:
        """What `call` answers about this device; None when it has no such value.

        Raises:
            HardwareError: As `Hardware.read`.
        """
        whom = self._whom(what)
        if what in self.unsupported or whom is None:
            return None
        try:
            return call(whom)
        except pynvml.NVMLError as error:
            if self.gpu is not None and error.value == pynvml.NVML_ERROR_NOT_FOUND:
                raise DeviceLostError(self.uuid, f"{what}: the partition is there no more") from error
            if error.value in NEVER_SUPPORTED:
                self.unsupported.add(what)
                _log.info("device does not report", uuid=self.uuid, what=what, why=str(error))
                return None
            if error.value in NOT_NOW:
                return None
            raise device_error(self.uuid, what, error) from error

    @property
    def reporter(self) -> Any:
        """Handle of the GPU that reports this device's events."""
        return self.handle if self.gpu is None else self.gpu

    def _whom(self, what: str) -> Any:
        """The handle to ask; None: a partition has no such value."""
        if self.gpu is None or what in mig.OWN:
            return self.handle
        return self.gpu if what in mig.OF_ITS_GPU else None

    def ask_extra(self, what: str, call: Callable[[Any], Any]) -> Any:
        """The same of what a reading can do without: an error of no special meaning is no value.

        Some drivers answer a single call with "unknown error" for as long as they run. That call's value is not worth
        the rest of the reading, nor the device.

        Raises:
            HardwareError: As `Hardware.read`, save for a `DeviceReadError`.
        """
        try:
            value = self.ask(what, call)
        except DeviceReadError as error:
            if what not in self.failing:
                self.failing.add(what)
                _log.warning("device does not say", uuid=self.uuid, what=what, error=str(error))
            return None
        self.failing.discard(what)
        return value
