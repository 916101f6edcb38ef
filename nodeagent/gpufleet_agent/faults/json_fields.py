"""Typed access to the fields of a JSON object, and the parts that the status and the fault file have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gpufleet_agent.devices.base import DeviceInfo, Recovery
from gpufleet_agent.sampling.snapshot import HealthReason

T = TypeVar("T")

MAX_TEXT = 256
MAX_UUID, MAX_CODE, MAX_ADDRESS = 96, 64, 32
"""Limits of the status: a longer value would make it invalid as long as the fault persists."""
MAX_INDEX = 1 << 16


def of_type(kind: type[T], value: Any) -> T:
    """Returns the value.

    Raises:
        TypeError: It is of another type. A boolean is not a number.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise TypeError(f"{str(value)[:MAX_TEXT]!r} is not of type {kind.__name__}")
    return value


@dataclass(frozen=True, slots=True)
class JsonFields:
    """Fields of a JSON object. All methods raise KeyError, TypeError or ValueError if a value is not usable."""

    entry: Mapping[str, Any]
    parse_time: Callable[[Any], float | None]
    """Returns seconds since the epoch; None or ValueError: the value is not a time."""
    strict: bool = False
    """Whether every field must be present and within its limits. If not, a missing field counts as null."""

    def text(self, name: str, limit: int, *, default: str | None = None) -> str:
        """Returns a string of at most `limit` characters. The default is for lenient reading only."""
        value = self._get(name)
        if value is None and default is not None and not self.strict:
            return default
        text = of_type(str, value)
        if self.strict:
            text.encode()  # JSON can escape halves of characters, which UTF-8 cannot encode
            if len(text) > limit:
                raise ValueError(f"{name}: {text[:limit]!r}... must have at most {limit} characters")
        return text

    def name(self, name: str, limit: int) -> str:
        """Returns a string that is not empty, if strict."""
        text = self.text(name, limit)
        if self.strict and not text:
            raise ValueError(f"{name}: must not be empty")
        return text

    def optional_text(self, name: str, limit: int) -> str | None:
        return None if self._get(name) is None else self.text(name, limit)

    def optional_integer(self, name: str) -> int | None:
        value = self._get(name)
        return None if value is None else of_type(int, value)

    def index(self, name: str) -> int:
        if not self.strict:
            return int(self.entry[name])
        index = of_type(int, self.entry[name])
        if not 0 <= index < MAX_INDEX:
            raise ValueError(f"{name}: {index} must be from 0 to {MAX_INDEX - 1}")
        return index

    def items(self, name: str) -> list[Any]:
        value = self._get(name)
        return [] if value is None and not self.strict else of_type(list, value)

    def time(self, name: str, *, default: float) -> float:
        """Returns seconds since the epoch. The default is for lenient reading only."""
        found = self.parse_time(self._get(name))
        return default if found is None else found

    def optional_time(self, name: str) -> float | None:
        value = self._get(name)
        return None if value is None else self.parse_time(value)

    def inside(self, entry: Any) -> "JsonFields":
        """Returns the fields of an object inside this one."""
        if self.strict:
            of_type(dict, entry)
        return JsonFields(entry, self.parse_time, self.strict)

    def _get(self, name: str) -> Any:
        return self.entry[name] if self.strict else self.entry.get(name)


def read_device_info(fields: JsonFields) -> DeviceInfo:
    """Reads the static facts of a device that both formats have."""
    return DeviceInfo(
        uuid=fields.name("uuid", MAX_UUID),
        index=fields.index("index"),
        model=fields.text("model", MAX_TEXT),
        pci_bus_id=fields.optional_text("pciBusId", MAX_ADDRESS),
        memory_total_mib=fields.optional_integer("memoryTotalMiB"),
    )


def read_reason(fields: JsonFields, *, default_since: float = 0.0, fault: bool = True) -> HealthReason:
    """Reads a fault or a warning.

    Args:
        fields: Of the reason.
        default_since: Used where the time is missing, in seconds since the epoch; for lenient reading only.
        fault: Whether it is a fault.
    """
    recovery = fields.entry["recovery"] if fields.strict else fields.entry.get("recovery", Recovery.AUTOMATIC)
    return HealthReason(
        code=fields.name("code", MAX_CODE),
        message=fields.text("message", MAX_TEXT, default=""),
        since=fields.time("since", default=default_since),
        recovery=Recovery(recovery),
        fault=fault,
    )
