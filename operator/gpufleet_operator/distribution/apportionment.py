"""Divides a number of items by capacity: largest remainder, with a maximum per receiver.

Exact for every input: capacities are scaled to integers, so that shards + unassigned = items.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

from gpufleet_operator.placement.errors import InvalidCapacityError

K = TypeVar("K", bound=Hashable)
"""Names a receiver: a replica index, a device UUID."""


@dataclass(frozen=True, slots=True)
class Shards(Generic[K]):
    """Items per receiver in the order of the capacities, and the items that no receiver could take."""

    items: Mapping[K, int]
    unassigned: int = 0

    @property
    def ranges(self) -> dict[K, tuple[int, int]]:
        """Contiguous [start, end) per receiver, in order, from 0. An empty share is an empty range."""
        start, ranges = 0, {}
        for key, share in self.items.items():
            ranges[key] = (start, start + share)
            start += share
        return ranges


def apportion_evenly(items: int, receivers: Sequence[K], maximum: Mapping[K, int] | int | None = None) -> Shards[K]:
    """Divides `items` into equal parts; the first receivers get one more if needed. Raises as `apportion` does."""
    if len(set(receivers)) != len(receivers):
        raise InvalidCapacityError("duplicate receiver")
    return apportion(items, dict.fromkeys(receivers, 1), maximum)


def apportion(
    items: int, capacities: Mapping[K, float | Fraction], maximum: Mapping[K, int] | int | None = None
) -> Shards[K]:
    """Divides `items` in proportion to `capacities`.

    A receiver of capacity 0 gets nothing. With `maximum` (one for all, or per receiver), what a full receiver cannot
    take goes to the others in proportion; items that no receiver can take are `unassigned`. Equal remainders go to the
    receiver that comes first.

    Raises:
        InvalidCapacityError: negative items or maximum; no receiver; a capacity that is NaN, infinite or
            negative; all capacities 0; a maximum for an unknown receiver.
    """
    weights = _checked(items, capacities)
    limits = _limits(weights, maximum)
    given = dict.fromkeys(weights, 0)
    waiting = {key: weight for key, weight in weights.items() if weight}
    total = sum(waiting.values())
    # A receiver that would reach its maximum is filled and removed, which increases the parts of the others.
    # In ascending order of maximum per capacity all receivers that are filled come first: one pass is enough.
    for key in sorted(limits.keys() & waiting.keys(), key=lambda key: Fraction(limits[key], waiting[key])):
        if items * waiting[key] < limits[key] * total:
            break
        given[key] = limits[key]
        items -= limits[key]
        total -= waiting.pop(key)
    if not waiting:
        return Shards(given, items)
    return Shards(given | _largest_remainder(items, waiting, total))


def unassigned_items(items: int, ranges: Mapping[K, tuple[int, int]]) -> int:
    """Returns the items that are in none of the ranges."""
    return items - sum(end - start for start, end in ranges.values())


def _checked(items: int, capacities: Mapping[K, float | Fraction]) -> dict[K, int]:
    """Returns the capacities as integers in the same ratio; a float is a ratio of two integers."""
    if items < 0:
        raise InvalidCapacityError(f"items is {items}, must be 0 or more")
    if not capacities:
        raise InvalidCapacityError("no receiver to divide the items among")
    for key, capacity in capacities.items():
        finite = isinstance(capacity, int | Fraction) or math.isfinite(capacity)
        if not finite or capacity < 0:
            raise InvalidCapacityError(f"the capacity of {key} is {capacity}, must be finite and 0 or more")
    if not any(capacities.values()):
        raise InvalidCapacityError("all capacities are 0")
    ratios = {key: capacity.as_integer_ratio() for key, capacity in capacities.items()}
    common = math.lcm(*{below for _, below in ratios.values()})
    return {key: above * (common // below) for key, (above, below) in ratios.items()}


def _limits(weights: Mapping[K, int], maximum: Mapping[K, int] | int | None) -> dict[K, int]:
    if maximum is None:
        return {}
    limits = dict(maximum) if isinstance(maximum, Mapping) else dict.fromkeys(weights, maximum)
    for key, limit in limits.items():
        if key not in weights:
            raise InvalidCapacityError(f"a maximum is given for {key}, which has no capacity")
        if limit < 0:
            raise InvalidCapacityError(f"the maximum of {key} is {limit}, must be 0 or more")
    return limits


def _largest_remainder(items: int, weights: Mapping[K, int], total: int) -> dict[K, int]:
    """Returns whole parts plus one item each for the largest remainders; the first receiver wins a tie."""
    parts = {key: divmod(items * weight, total) for key, weight in weights.items()}
    left = items - sum(whole for whole, _ in parts.values())
    rounded_up = set(sorted(parts, key=lambda key: -parts[key][1])[:left])
    return {key: whole + (key in rounded_up) for key, (whole, _) in parts.items()}
