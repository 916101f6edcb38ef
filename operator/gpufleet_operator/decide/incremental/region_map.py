"""A part of a map, without a copy of the rest."""

from collections.abc import Collection, ItemsView, Iterator, Mapping, ValuesView
from typing import Any, TypeVar

T = TypeVar("T")


class RegionMap(Mapping[str, T]):
    """Iterates over a part of a map in the order of the keys, and looks up in the whole map.

    So a rule that goes through all objects goes through the part, and one that follows a reference finds its object.
    """

    __slots__ = ("_part", "_whole")

    def __init__(self, whole: Mapping[str, T], part: Collection[str]) -> None:
        self._whole = whole
        self._part = {key: whole[key] for key in sorted(part) if key in whole}

    def __getitem__(self, key: str) -> T:
        return self._whole[key]

    def __contains__(self, key: object) -> bool:
        return key in self._whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._part)

    def __len__(self) -> int:
        return len(self._part)

    # As in `Mapping`, which takes a call of Python for each entry.

    def get(self, key: str, default: Any = None) -> Any:
        return self._whole.get(key, default)

    def items(self) -> ItemsView[str, T]:
        return self._part.items()

    def values(self) -> ValuesView[T]:
        return self._part.values()
