"""Serializes the engine's dataclasses as JSON by their type hints. Equal values give equal bytes."""

import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_bytes(value: object) -> bytes:
    """Returns canonical JSON: sorted keys and sets, all fields."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def from_bytes(kind: type[T], raw: bytes) -> T:
    """Parses what `to_bytes` wrote.

    Raises:
        ValueError: not JSON, a field that is missing or unknown, or a value of another type.
    """
    value: T = _typed(kind, json.loads(raw))
    return value


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _typed(kind: Any, value: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        return tuple(_typed(args[0], item) for item in _expect(list, value))
    if origin is frozenset:
        return frozenset(_typed(args[0], item) for item in _expect(list, value))
    if origin is Mapping:
        return {args[0](key): _typed(args[1], item) for key, item in _expect(dict, value).items()}
    if is_dataclass(kind):
        return _object(kind, _expect(dict, value))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return value  # an integer written by a caller that had an int
    return _expect(kind, value)


def _object(kind: Any, value: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    if value.keys() != hints.keys():
        raise ValueError(f"{kind.__name__}: fields differ: {sorted(value.keys() ^ hints.keys())}")
    return kind(**{name: _typed(hint, value[name]) for name, hint in hints.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{value!r} is not a {kind.__name__}")
    return value
