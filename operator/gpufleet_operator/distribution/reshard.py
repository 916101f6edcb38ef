"""Divides items again after a receiver leaves, joins or slows, and moves as few items as possible.

Contiguous ranges would shift almost every boundary, so after a change a receiver has a list of ranges: it keeps
its items up to its new shard size, and the rest goes to receivers that have too few.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gpufleet_operator.distribution.apportionment import Shards
from gpufleet_operator.placement.errors import InvalidCapacityError

K = TypeVar("K", bound=Hashable)
Range = tuple[int, int]
"""[start, end)"""


@dataclass(frozen=True, slots=True)
class Resharding(Generic[K]):
    """The ranges of each receiver in ascending order, and how many items moved.

    `moved` counts the items that a receiver fetches from another one; no division with these shard sizes
    moves fewer. `unassigned` are the ranges that no receiver can take.
    """

    ranges: Mapping[K, tuple[Range, ...]]
    moved: int
    unassigned: tuple[Range, ...] = ()


def reshard(before: Mapping[K, Iterable[Range]], after: Shards[K]) -> Resharding[K]:
    """Fits the ranges of each receiver to its new shard size.

    Args:
        before: The ranges of each receiver; together with the unassigned ranges they cover 0..items.
        after: The new shard sizes; receivers that are missing here have left.

    Raises:
        InvalidCapacityError: ranges in `before` overlap, are reversed or lie outside 0..items.
    """
    items = sum(after.items.values()) + after.unassigned
    free = _gaps(before, items)
    kept: dict[K, list[Range]] = {}
    for key, ranges in before.items():
        mine, over = _split(ranges, after.items.get(key, 0))
        if key in after.items:
            kept[key] = mine
        free.extend(over)
    spare = deque(sorted(free))
    given: dict[K, tuple[Range, ...]] = {}
    moved = 0
    for key, share in after.items.items():
        mine = kept.get(key, [])
        short = share - _size(mine)
        moved += short
        given[key] = _merged([*mine, *_fetched(spare, short)])
    return Resharding(given, moved, _merged(spare))


def _gaps(before: Mapping[K, Iterable[Range]], items: int) -> list[Range]:
    gaps, position = [], 0
    for start, end in sorted(r for ranges in before.values() for r in ranges if r[0] != r[1]):
        if start < position or end < start or end > items:
            raise InvalidCapacityError(f"range [{start}, {end}) is reversed, overlaps another or passes {items}")
        if start > position:
            gaps.append((position, start))
        position = end
    return [*gaps, (position, items)] if position < items else gaps


def _split(ranges: Iterable[Range], first: int) -> tuple[list[Range], list[Range]]:
    """Returns the first `first` items of the ranges, and the rest."""
    head: list[Range] = []
    tail: list[Range] = []
    for start, end in ranges:
        cut = min(end, start + first)
        first -= cut - start
        if cut > start:
            head.append((start, cut))
        if end > cut:
            tail.append((cut, end))
    return head, tail


def _fetched(spare: deque[Range], items: int) -> Iterator[Range]:
    """Yields `items` items from the front, and removes them from `spare`."""
    while items:
        start, end = spare.popleft()
        cut = min(end, start + items)
        items -= cut - start
        yield start, cut
        if end > cut:
            spare.appendleft((cut, end))


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Returns the ranges in ascending order, adjacent ones merged."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return tuple(merged)


def _size(ranges: Iterable[Range]) -> int:
    return sum(end - start for start, end in ranges)
