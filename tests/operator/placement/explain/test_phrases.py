from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.model import Reason


def test_every_reason_has_its_words() -> None:
    assert set(PHRASES) == set(Reason)
    assert len(set(PHRASES.values())) == len(Reason), "two reasons must not read alike"
