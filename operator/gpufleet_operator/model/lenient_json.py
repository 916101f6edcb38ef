"""Access to JSON of unknown form: a value of another type is read as empty, and nothing raises."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

_MAX_DIGITS = 18
"""An index has a few digits. Python converts no text of more than 4,300, and annotations may have 262,144."""


def as_map(value: Any) -> Json:
    """Returns the value if it is a map, else an empty one."""
    if type(value) is dict:  # spares the slow test of an abstract class, thousands of times in a list of pods
        return value
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> Sequence[Any]:
    """Returns the value if it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def maps(value: Any) -> Iterable[Json]:
    """Returns the entries of a list, each as a map."""
    return map(as_map, as_list(value))


def text(value: Any) -> str:
    """Returns the value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def index(value: Any) -> int | None:
    """Returns the number that a label or annotation has in up to 18 decimal digits; None if it has anything else."""
    digits = text(value)
    return int(digits) if len(digits) <= _MAX_DIGITS and digits.isascii() and digits.isdigit() else None


def number(value: Any) -> int:
    """Returns the value if it is an integer, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
