"""Quantiles, recommendation, and what a new run is placed with."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.demand.gpu_demand import DemandStatus
from gpufleet_operator.demand.statistics import FULL_RUNS, MIN_RUNS, learned_mib, percentile, recommended_mib

MIB = st.integers(1, 200_000)
MAXIMA = st.lists(MIB, min_size=1, max_size=32)


def status(maxima: list[int]) -> DemandStatus:
    return DemandStatus(
        observed_at="2026-01-01T00:00:00Z", counted_runs=len(maxima), p80_mib=percentile(maxima, 80) if maxima else None
    )


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([5], 50, 5), ([1, 2], 50, 1), ([3, 1, 2], 50, 2), ([1, 2, 3, 4], 80, 4), ([5, 4, 3, 2, 1], 80, 4)],
)  # fmt: skip
def test_percentile_is_the_nearest_rank(values: list[int], percent: int, expected: int) -> None:
    assert percentile(values, percent) == expected


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 80)


@given(MAXIMA, st.integers(1, 100))
def test_percentile_bounds_so_many_percent_of_the_values(values: list[int], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values)
    assert 100 * sum(value < found for value in values) < percent * len(values)


@pytest.mark.parametrize(
    ("most", "expected"), [(12_595, 14_000), (9_000, 9_900), (8_300, 9_200), (512, 570), (90, 99), (3, 4), (0, 1)]
)
def test_recommendation_has_a_margin_and_two_digits(most: int, expected: int) -> None:
    assert recommended_mib(most) == expected


@given(MIB)
def test_recommendation_is_enough_and_not_far_more(most: int) -> None:
    wanted = Fraction(most * 11, 10)
    found = recommended_mib(most)
    assert wanted <= found <= max(wanted * Fraction(11, 10), wanted + 1)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param(0, None, id="no run"),
        pytest.param(MIN_RUNS - 1, None, id="too few"),
        pytest.param(2, 6440, id="two fifths of what is not used"),
        pytest.param(4, 2880, id="four fifths"),
        pytest.param(FULL_RUNS, 1100, id="all of it, with the margin"),
        pytest.param(30, 1100, id="no less with more runs"),
    ],
)
def test_each_run_adds_its_part(runs: int, expected: int | None) -> None:
    assert learned_mib(10_000, status([1000] * runs)) == expected


@pytest.mark.parametrize(
    ("used", "expected"), [pytest.param(3000, 3000, id="more"), pytest.param(950, 1000, id="as much as promised")]
)
def test_more_than_promised_counts_in_full(used: int, expected: int) -> None:
    assert learned_mib(1000, status([used, used])) == expected


def test_recommendation_is_not_more_than_a_device_has() -> None:
    assert recommended_mib(78_000, 81_080) == 81_080
    assert recommended_mib(78_000) == 86_000
    assert recommended_mib(90_000, 81_080) == 90_000, "it was used, whatever the device reported"


def test_nothing_is_known_of_a_template_without_status() -> None:
    assert learned_mib(1000, None) is None


@given(MIB, MAXIMA)
def test_learned_demand_is_between_promise_and_use(asked: int, maxima: list[int]) -> None:
    found = learned_mib(asked, status(maxima))
    if len(maxima) < MIN_RUNS:
        assert found is None
    else:
        used = percentile(maxima, 80)
        assert found is not None
        assert used <= found <= max(asked, used), "never less than what was used"
        assert found >= min(asked, used * 11 // 10), "with the margin, if that is within the promise"


@given(MIB, MIB, st.integers(MIN_RUNS, 31))
def test_another_run_of_the_same_use_never_raises_the_demand(asked: int, used: int, runs: int) -> None:
    fewer, more = (learned_mib(asked, status([used] * number)) for number in (runs, runs + 1))
    assert fewer is not None
    assert more is not None
    assert more <= fewer
