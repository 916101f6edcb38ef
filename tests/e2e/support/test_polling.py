from collections.abc import Iterator

import pytest

from gpufleet_e2e.proof import EvidenceError
from gpufleet_e2e.support.polling import eventually, never


def test_the_answer_comes_as_soon_as_the_condition_holds() -> None:
    looks: Iterator[Exception | int] = iter([AssertionError("not yet"), EvidenceError("can't tell"), 7])

    def look() -> int:
        answer = next(looks)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert eventually(look, within=5, every=0.001) == 7


def test_failure_contains_the_last_state() -> None:
    def look() -> None:
        raise AssertionError("two pods left")

    with pytest.raises(AssertionError, match=r"not within 0.01 s: two pods left"):
        eventually(look, within=0.01, every=0.001)


def test_another_error_is_passed_on_at_once() -> None:
    def look() -> None:
        raise KeyError("status")

    with pytest.raises(KeyError):
        eventually(look, within=5)


def test_never_fails_at_the_first_sight() -> None:
    looks = []

    def look() -> None:
        looks.append(1)
        assert len(looks) < 3, "there it is"

    with pytest.raises(AssertionError, match="there it is"):
        never(look, for_seconds=5, every=0.001)
