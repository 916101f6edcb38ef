"""Shares by largest remainder: shares + unassigned = items for every input, and every key gets at least its minimum."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpufleet_operator.distribution import apportion, apportion_evenly
from gpufleet_operator.placement.errors import InvalidCapacityError, PlacementError

CAPACITIES = st.dictionaries(
    st.integers(0, 30),
    st.integers(0, 10**6) | st.floats(0, 1e300, allow_subnormal=True) | st.sampled_from([0, 0.1, 1 / 3, 5e-324]),
    min_size=1,
    max_size=12,
)
ITEMS = st.integers(0, 50) | st.integers(0, 2**53)
MAXIMUM = st.none() | st.integers(0, 20) | st.dictionaries(st.integers(0, 30), st.integers(0, 2**50), max_size=6)


@given(items=ITEMS, capacities=CAPACITIES, maximum=MAXIMUM)
def test_shares_and_unassigned_add_up_to_the_items(
    items: int, capacities: dict[int, float], maximum: dict[int, int] | int | None
) -> None:
    assume(any(capacities.values()))
    if isinstance(maximum, dict):
        maximum = {k: v for k, v in maximum.items() if k in capacities}
    found = apportion(items, capacities, maximum)
    assert sum(found.items.values()) + found.unassigned == items
    assert list(found.items) == list(capacities)
    for key, share in found.items.items():
        limit = maximum.get(key) if isinstance(maximum, dict) else maximum
        assert share >= 0
        assert limit is None or share <= limit
        assert capacities[key] or share == 0
    if found.unassigned:
        for key, share in found.items.items():
            limit = maximum.get(key) if isinstance(maximum, dict) else maximum
            assert not capacities[key] or share == limit, "leftover items fit on no key"


@given(items=ITEMS, capacities=CAPACITIES)
def test_without_a_maximum_everyone_gets_his_part_rounded_up_or_down(items: int, capacities: dict[int, float]) -> None:
    assume(any(capacities.values()))
    found = apportion(items, capacities)
    total = sum(map(Fraction, capacities.values()))
    assert found.unassigned == 0
    remainders = {}
    for key, share in found.items.items():
        exact = items * Fraction(capacities[key]) / total
        assert math.floor(exact) <= share <= math.ceil(exact)
        remainders[key] = (exact - math.floor(exact), share > exact)
    up = [r for r, rounded in remainders.values() if rounded]
    down = [r for r, rounded in remainders.values() if not rounded]
    assert not up or not down or min(up) >= max(down)


@given(items=ITEMS, capacities=CAPACITIES, maximum=st.integers(0, 2**50))
def test_more_capacity_never_means_a_smaller_share(items: int, capacities: dict[int, float], maximum: int) -> None:
    assume(any(capacities.values()))
    found = apportion(items, capacities, maximum)
    order = sorted(capacities, key=lambda k: capacities[k])
    for smaller, larger in pairwise(order):
        if capacities[smaller] < capacities[larger]:
            assert found.items[smaller] <= found.items[larger]


@given(items=ITEMS, capacities=CAPACITIES)
def test_ranges_are_contiguous_from_zero_in_order(items: int, capacities: dict[int, float]) -> None:
    assume(any(capacities.values()))
    found = apportion(items, capacities)
    position = 0
    for key, (start, end) in found.ranges.items():
        assert start == position
        assert end - start == found.items[key]
        position = end
    assert position == items


@given(items=ITEMS, receivers=st.integers(1, 40))
def test_uniform_parts_differ_by_one_at_most_the_first_get_more(items: int, receivers: int) -> None:
    found = list(apportion_evenly(items, range(receivers)).items.values())
    assert max(found) - min(found) <= 1
    assert found == sorted(found, reverse=True)


def test_the_example_of_the_command_line() -> None:
    found = apportion(7, {"a": 1, "b": 2.5}, {"a": 2})
    assert (found.items, found.ranges, found.unassigned) == ({"a": 2, "b": 5}, {"a": (0, 2), "b": (2, 7)}, 0)


def test_what_a_full_receiver_leaves_goes_to_the_others_in_proportion() -> None:
    found = apportion(100, {"a": 8, "b": 1, "c": 1}, {"a": 40})
    assert found.items == {"a": 40, "b": 30, "c": 30}


def test_a_capacity_may_be_larger_than_any_float() -> None:
    assert apportion(10, {"a": 4 * 10**400, "b": 10**400, "c": 1}).items == {"a": 8, "b": 2, "c": 0}


def test_equal_remainders_go_to_the_first_receiver() -> None:
    assert list(apportion(1, {"b": 1, "a": 1}).items.values()) == [1, 0]


def test_zero_capacity_devices_get_nothing_even_when_the_rest_is_full() -> None:
    found = apportion(10, {"a": 1, "b": 0}, {"a": 4})
    assert (found.items, found.unassigned) == ({"a": 4, "b": 0}, 6)


@pytest.mark.parametrize("capacities", [{"a": 0}, {"a": 0, "b": 0.0}])
def test_division_by_zero_in_capacity_distribution_is_a_clear_error(capacities: dict[str, float]) -> None:
    with pytest.raises(InvalidCapacityError, match="all capacities are 0"):
        apportion(10, capacities)


@pytest.mark.parametrize(
    ("items", "capacities", "maximum", "named"),
    [
        (1, {"a": math.nan}, None, "capacity of a is nan"),
        (1, {"a": 1, "b": math.inf}, None, "capacity of b is inf"),
        (1, {"a": -math.inf}, None, "capacity of a is -inf"),
        (1, {"a": -0.5}, None, "capacity of a is -0.5"),
        (-1, {"a": 1}, None, "items is -1"),
        (1, {}, None, "no receiver"),
        (1, {"a": 1}, -1, "maximum of a is -1"),
        (1, {"a": 1}, {"z": 1}, "maximum is given for z"),
    ],
)
def test_bad_numbers_are_typed_errors_that_name_them(
    items: int, capacities: dict[str, float], maximum: dict[str, int] | int | None, named: str
) -> None:
    with pytest.raises(InvalidCapacityError, match=named) as caught:
        apportion(items, capacities, maximum)
    assert isinstance(caught.value, PlacementError)


def test_duplicate_receiver_is_rejected() -> None:
    with pytest.raises(InvalidCapacityError, match="duplicate receiver"):
        apportion_evenly(3, ["a", "a"])


def test_no_items_are_no_error() -> None:
    assert apportion(0, {"a": 1}).ranges == {"a": (0, 0)}
