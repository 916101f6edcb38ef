"""Writes that failed are tried again in the first round after their pause."""

import asyncio

import pytest

from gpufleet_operator.runtime.pacing.paused_writes import PausedWrites


async def test_write_is_paused_until_the_first_round_after_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    paused: PausedWrites[str] = PausedWrites()
    paused.pause("rejected", 30)
    paused.pause("conflict", 0)
    assert ("rejected" in paused, "conflict" in paused, "other" in paused) == (True, True, False)

    paused.start_round()
    assert ("rejected" in paused, "conflict" in paused) == (True, False)

    now = 130.0
    assert "rejected" in paused, "a round decides by one state"
    paused.start_round()
    assert "rejected" not in paused


async def test_pause_doubles_with_each_failure_until_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    now, paused = 100.0, PausedWrites[str]()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)

    def pause_of_the_next_failure() -> float:
        nonlocal now
        paused.back_off("hanging")
        begin = now
        while "hanging" in paused:
            now += 0.25
            paused.start_round()
        return now - begin

    assert [pause_of_the_next_failure() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert (paused.failures("hanging"), paused.failures("other")) == (9, 0)
    paused.succeeded("hanging")
    assert pause_of_the_next_failure() == 0.5


async def test_failures_of_a_write_that_is_no_longer_needed_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now, paused = 100.0, PausedWrites[str]()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    paused.back_off("gone")
    now = 161.0
    paused.start_round()
    assert paused.failures("gone") == 0
