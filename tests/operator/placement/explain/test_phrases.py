from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.model import FilterReason


def test_every_reason_has_its_words() -> None:
    assert set(PHRASES) == set(FilterReason)
    assert len(set(PHRASES.values())) == len(FilterReason), "two reasons must not read alike"
