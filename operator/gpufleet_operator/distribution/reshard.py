"""Divides anew when a receiver leaves, comes or slows, and moves as few items as the new shares allow.

Contiguous ranges would shift almost every boundary, so after a change a receiver holds a list of ranges: it
keeps the items that it has, up to its new share, and the rest goes to those who are short.
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
    """Who holds which ranges now, in ascending order, and how many items changed hands.

    `moved` counts the items that a receiver of the new shares has to fetch from another one; it is the least
    that any division with these shares can have. `unassigned` are the ranges that nobody can take.
    """

    ranges: Mapping[K, tuple[Range, ...]]
    moved: int
    unassigned: tuple[Range, ...] = ()


def reshard(before: Mapping[K, Iterable[Range]], after: Shards[K]) -> Resharding[K]:
    """Fit what each receiver holds to its new share.

    Args:
        before: the ranges that each receiver holds; together with what nobody held they make up 0..items.
        after: the new shares; receivers that are missing here have left.

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
    """What nobody held."""
    gaps, position = [], 0
    for start, end in sorted(r for ranges in before.values() for r in ranges if r[0] != r[1]):
        if start < position or end < start or end > items:
            raise InvalidCapacityError(f"range [{start}, {end}) is reversed, overlaps another or passes {items}")
        if start > position:
            gaps.append((position, start))
        position = end
    return [*gaps, (position, items)] if position < items else gaps


def _split(ranges: Iterable[Range], first: int) -> tuple[list[Range], list[Range]]:
    """The first `first` items of the ranges, and the rest."""
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
    """Takes `items` items off the front."""
    while items:
        start, end = spare.popleft()
        cut = min(end, start + items)
        items -= cut - start
        yield start, cut
        if end > cut:
            spare.appendleft((cut, end))


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Ascending, neighbours joined."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return tuple(merged)


def _size(ranges: Iterable[Range]) -> int:
    return sum(end - start for start, end in ranges)
