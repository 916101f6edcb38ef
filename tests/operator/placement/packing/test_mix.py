import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.model import Share
from gpufleet_operator.placement.packing import PRIOR, Mix, MixEstimator, PodType
from gpufleet_testing.placement.builders import make_request

ONE = PodType(1_000, 0, 1)
TWO = PodType(1_000, 0, 2)


@given(
    st.dictionaries(
        st.builds(PodType, st.integers(0, 3), st.just(0), st.integers(0, 8)), st.just(0.0) | st.floats(1e-6, 1e6)
    )
)
def test_parts_are_positive_and_sum_to_one(weights: dict[PodType, float]) -> None:
    if sum(weights.values()) <= 0:
        with pytest.raises(InvalidRequestError, match="weights of a mix"):
            Mix.of(weights)
        return
    mix = Mix.of(weights)
    assert sum(mix.parts) == pytest.approx(1)
    assert all(part > 0 for part in mix.parts)
    assert set(mix.types) == {t for t, w in weights.items() if w > 0}


def test_a_negative_weight_is_rejected() -> None:
    with pytest.raises(InvalidRequestError):
        Mix.of({ONE: 2, TWO: -1})


def test_the_type_of_a_share_is_the_larger_of_its_parts() -> None:
    pod_type = PodType.of(make_request(share=Share(20_000, 10), cpu_milli=500), 80_000)
    assert (pod_type.milli, pod_type.devices, pod_type.cpu_milli) == (250, 1, 500)
    assert PodType.of(make_request(share=Share(1, 40)), 80_000).milli == 400
    assert PodType.of(make_request(count=4), 80_000) == PodType(0, 0, 4)


def test_a_census_starts_from_the_prior_and_ends_at_what_it_sees() -> None:
    census = MixEstimator()
    assert census.mix is PRIOR
    for _ in range(2_000):
        census.observe(ONE, 3)
        census.observe(TWO)
    parts = dict(zip(census.mix.types, census.mix.parts, strict=True))
    assert parts[ONE] == pytest.approx(0.75, abs=0.02)
    assert parts[TWO] == pytest.approx(0.25, abs=0.02)


def test_census_drops_types_that_are_no_longer_requested() -> None:
    census = MixEstimator(half_life_pods=100)
    census.observe(ONE, 1_000)
    for _ in range(500):
        census.observe(TWO)
    parts = dict(zip(census.mix.types, census.mix.parts, strict=True))
    assert parts[TWO] > 0.9


def test_mix_is_kept_until_enough_is_new() -> None:
    """Everything that Pack remembers belongs to one mix."""
    census = MixEstimator()
    census.observe(ONE, 1_000)
    seen = {id(census.mix)}
    for _ in range(100):
        census.observe(TWO)
        seen.add(id(census.mix))
    assert len(seen) == 1
