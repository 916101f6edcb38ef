"""One NVIDIA GPU: its handle, and what it has been found not to tell."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml
import structlog

from gpufleet_agent.devices.base import DeviceInfo, DeviceReadError
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, NOT_NOW, device_error

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class NvmlDevice:
    """Asked by one thread, its own."""

    uuid: str
    handle: Any
    unsupported: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    """What the last reading had to do without, see `ask_extra`."""
    info: DeviceInfo | None = None
    """Without peers."""
    far_ends: frozenset[str] = frozenset()
    """What its NVLinks lead to, see `nvml_links`."""
    answers: bool = True
    """Whether the last read succeeded."""

    def ask(self, what: str, call: Callable[[Any], Any]) -> Any:
        """What `call` answers about this device; None when it has no such value.

        Raises:
            HardwareError: As `Hardware.read`.
        """
        if what in self.unsupported:
            return None
        try:
            return call(self.handle)
        except pynvml.NVMLError as error:
            if error.value in NEVER_SUPPORTED:
                self.unsupported.add(what)
                _log.info("device does not report", uuid=self.uuid, what=what, why=str(error))
                return None
            if error.value in NOT_NOW:
                return None
            raise device_error(self.uuid, what, error) from error

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
