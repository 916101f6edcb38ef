"""A part of a map, without a copy of it."""

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class RegionMap(Mapping[str, T]):
    """Iterates over a part of a map in the order of the keys, and looks up in the whole map.

    So a rule that goes through all objects goes through the part, and one that follows a reference finds its object.
    """

    __slots__ = ("_keys", "_whole")

    def __init__(self, whole: Mapping[str, T], part: Collection[str]) -> None:
        self._whole = whole
        self._keys = tuple(sorted(key for key in part if key in whole))

    def __getitem__(self, key: str) -> T:
        return self._whole[key]

    def __contains__(self, key: object) -> bool:
        return key in self._whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
