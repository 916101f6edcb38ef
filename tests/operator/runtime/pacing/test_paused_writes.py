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
