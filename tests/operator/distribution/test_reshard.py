"""Re-sharding moves the fewest items that the new shares allow."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpufleet_operator.distribution import Resharding, apportion, reshard
from gpufleet_operator.placement.errors import InvalidCapacityError

CAPACITIES = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 20), min_size=1)


@given(
    items=st.integers(0, 200),
    before=CAPACITIES,
    after=CAPACITIES,
    limits=st.tuples(st.none() | st.integers(0, 40), st.none() | st.integers(0, 40)),
)
def test_it_moves_the_fewest_items_and_loses_none(
    items: int, before: dict[str, int], after: dict[str, int], limits: tuple[int | None, int | None]
) -> None:
    assume(any(before.values()))
    assume(any(after.values()))
    old, new = apportion(items, before, limits[0]), apportion(items, after, limits[1])
    held = {key: [span] for key, span in old.ranges.items()}
    found = reshard(held, new)
    _covers(found, items)
    for key, share in new.items.items():
        assert sum(end - start for start, end in found.ranges[key]) == share
    fewest = sum(max(0, share - old.items.get(key, 0)) for key, share in new.items.items())
    assert found.moved == fewest
    stayed = sum(_common(held[key][0], span) for key in held for span in found.ranges.get(key, ()))
    assert found.moved == sum(new.items.values()) - stayed
    again = reshard(found.ranges, new)
    assert (again.ranges, again.moved) == (found.ranges, 0)


def _covers(found: Resharding[str], items: int) -> None:
    spans = sorted([s for spans in found.ranges.values() for s in spans] + list(found.unassigned))
    assert all(start < end for start, end in spans)
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    if items:
        assert (spans[0][0], spans[-1][1]) == (0, items)
    for mine in found.ranges.values():
        assert list(mine) == sorted(mine)
        assert all(left[1] < right[0] for left, right in pairwise(mine)), "adjacent ranges are merged"


def _common(left: tuple[int, int], right: tuple[int, int]) -> int:
    return max(0, min(left[1], right[1]) - max(left[0], right[0]))


def test_when_a_device_leaves_only_its_items_move() -> None:
    old = apportion(90, {"a": 1, "b": 1, "c": 1})
    found = reshard({key: [span] for key, span in old.ranges.items()}, apportion(90, {"a": 1, "c": 1}))
    assert found.moved == 30
    assert found.ranges == {"a": ((0, 45),), "c": ((45, 90),)}


def test_when_a_device_slows_it_keeps_the_head_of_what_it_has() -> None:
    old = apportion(100, {"a": 1, "b": 1})
    found = reshard({key: [span] for key, span in old.ranges.items()}, apportion(100, {"a": 1, "b": 3}))
    assert found.moved == 25
    assert found.ranges == {"a": ((0, 25),), "b": ((25, 100),)}


def test_unassigned_items_are_assigned() -> None:
    found = reshard({"a": [(0, 10)]}, apportion(30, {"a": 1, "b": 1}))
    assert found.ranges == {"a": ((0, 15),), "b": ((15, 30),)}
    assert found.moved == 20


@pytest.mark.parametrize("spans", [[(0, 5), (4, 6)], [(5, 4)], [(0, 11)], [(-1, 3)]])
def test_ranges_that_cannot_be_are_rejected(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(InvalidCapacityError, match="reversed, overlaps another or passes 10"):
        reshard({"a": spans}, apportion(10, {"a": 1}))
