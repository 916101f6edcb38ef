"""Keeps results computed from a fleet: the most recently used of each kind."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_MAX_VALUES = 512
"""Values per kind."""

_NOTHING: Any = object()


class Memo:
    """Values store the fleet version that they were computed at."""

    def __init__(self) -> None:
        self._kinds: dict[type[Any], dict[Hashable, Any]] = {}

    def get(self, kind: type[T], key: Hashable, make: Callable[[], T], kept: int = _MAX_VALUES) -> T:
        """Returns the stored value of the key, or a new one, which may evict the least recently used value."""
        values = self._kinds.setdefault(kind, {})
        value: T = values.pop(key, _NOTHING)  # keys are large: each lookup costs a hash
        if value is _NOTHING:
            value = make()
            while len(values) >= kept:
                del values[next(iter(values))]
        values[key] = value
        return value

    def clear(self) -> None:
        self._kinds.clear()
