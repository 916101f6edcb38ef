"""The pause between two passes. Time is virtual."""

import pytest

from gpufleet_operator.runtime.pacing.pass_pause import BURST_SECONDS, MAX_PAUSE_SECONDS, PassPause


class Passes:
    """Passes that need processor time only."""

    def __init__(self) -> None:
        self.now = 0.0
        self._pause = PassPause(lambda: self.now)

    def one(self, used: float) -> float:
        self.now += used
        pause = self._pause.after(used)
        self.now += pause
        return pause


def test_first_passes_after_an_idle_time_follow_without_a_pause() -> None:
    passes = Passes()
    assert [passes.one(0.01) for _ in range(4)] == [0.0] * 4
    passes.now += 10
    assert passes.one(0.01) == 0.0


@pytest.mark.parametrize("used", [0.002, 0.03, 0.2])
def test_under_load_a_pause_is_as_long_as_the_pass(used: float) -> None:
    passes = Passes()
    while not passes.one(used):
        pass
    assert passes.one(used) == pytest.approx(used)
    began = passes.now
    busy = sum(used for _ in range(100) if passes.one(used) >= 0)
    assert busy / (passes.now - began) == pytest.approx(0.5)


def test_pause_after_a_long_pass_is_limited() -> None:
    passes = Passes()
    assert passes.one(3.0) == MAX_PAUSE_SECONDS
    assert passes.one(0.01) == pytest.approx(0.01)
    passes.now += MAX_PAUSE_SECONDS + BURST_SECONDS
    assert passes.one(0.01) == 0.0
