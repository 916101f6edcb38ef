"""Documents with another value at one place: what an object of the API may contain although no rule expects it."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from gpufleet_testing.hypothesis_profiles import THOROUGH

Path = tuple[str | int, ...]
T = TypeVar("T")
V = TypeVar("V")


def paths(document: object, here: Path = ()) -> Iterator[Path]:
    """Yields the path of each value below the root."""
    if here:
        yield here
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in entries:
        yield from paths(value, (*here, key))


def changed(document: T, path: Path, value: object) -> T:
    """Returns a copy with another value at a path."""
    document = copy.deepcopy(document)
    parent: Any = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return document


def variants(document: T, places: Sequence[Path], values: Sequence[V]) -> Iterator[tuple[Path, V, T]]:
    """Yields path, value and changed document: at each place a third of the values in turn, or all if thorough."""
    for at, path in enumerate(places):
        for value in values if THOROUGH else values[at % 3 :: 3]:
            yield path, value, changed(document, path, value)
