"""The loop of passes: the pause between two of them."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.actions import Actions, CreatePod
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.jobs import WriteOutcome
from gpufleet_operator.runtime.lanes import Lane
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_testing.operator import make


class Waiting:
    """Waits for a response to the writes of each pass, which takes no processor time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.waited = loop, 0.0
        self.pause_seconds = 0.0

    async def run(
        self, actions: Actions, on_write: Callable[[], None] = lambda: None, pause_seconds: float = 0.0
    ) -> list[WriteOutcome]:
        del actions
        self.pause_seconds = pause_seconds
        began = self.loop.time()
        await asyncio.sleep(0.05)  # the response: shorter is not distinguished from the shortest pause
        self.waited = self.loop.time() - began
        on_write()
        return []

    def take_responded(self) -> tuple[list[WriteOutcome], frozenset[str]]:
        return [], frozenset()

    def due(self) -> None:
        pass

    def in_flight(self) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(), frozenset()

    def sent(self) -> Mapping[Lane, int]:
        return {}


@pytest.mark.parametrize(("used", "pause"), [(0.2, 0.15), (0.03, 0.0), (3.0, 0.5)], ids=["as used", "first", "at most"])
async def test_writes_are_sent_during_the_pause_after_a_decision(used: float, pause: float) -> None:
    class Ended(Exception):  # noqa: N818 - ends the loop of the test
        pass

    pauses: list[float] = []
    readings = iter([100.0, 100.0 + used])

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise Ended

    def decide(snapshot: Snapshot, *_: Any) -> tuple[Actions, None]:
        del snapshot
        return Actions(creates=(CreatePod("uid-w", "ml", "w-0", 0, {}),)), None

    runner = Waiting(asyncio.get_running_loop())
    reconciler = Reconciler(
        Cache(),
        runner,
        Limits(),
        ServerClock(lambda: make.NOW),
        Metrics(CollectorRegistry()),
        name_seed=lambda: "salt",
        resync_interval_seconds=10,
        decide=decide,
        processor_seconds=lambda: next(readings),
        sleep=sleep,
    )

    with pytest.raises(Ended):
        await reconciler.run()

    assert runner.waited > 0.03
    assert runner.pause_seconds == pytest.approx(pause), "the processor time of the decision"
    assert len(pauses) == 1
    assert 0.0 <= pauses[0] <= max(0.0, pause - runner.waited), "the rest of the pause"
