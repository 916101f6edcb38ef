"""Reading JSON of which nothing is sure: what isn't of the form that is asked for is empty, and nothing raises."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def as_map(value: Any) -> Json:
    """The value if it is a map."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> Sequence[Any]:
    """The value if it is a list."""
    return value if isinstance(value, list | tuple) else ()


def maps(value: Any) -> Iterable[Json]:
    """The entries of a list, each as a map."""
    return map(as_map, as_list(value))


def text(value: Any) -> str:
    """The value if it is text."""
    return value if isinstance(value, str) else ""


def number(value: Any) -> int:
    """The value if it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
