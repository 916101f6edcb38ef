"""What was computed from a fleet, by kind: the most recently used of each kind are kept."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_KEPT = 512
"""Of each kind."""

_NOTHING: Any = object()


class Memo:
    """Values know themselves at which version of the fleet they were computed."""

    def __init__(self) -> None:
        self._kinds: dict[type[Any], dict[Hashable, Any]] = {}

    def get(self, kind: type[T], key: Hashable, make: Callable[[], T], kept: int = _KEPT) -> T:
        """The value that is kept under this key, or a new one, which may push out the one used longest ago."""
        values = self._kinds.setdefault(kind, {})
        value: T = values.pop(key, _NOTHING)  # keys are large: each look costs a hash
        if value is _NOTHING:
            value = make()
            while len(values) >= kept:
                del values[next(iter(values))]
        values[key] = value
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._kinds.clear()
