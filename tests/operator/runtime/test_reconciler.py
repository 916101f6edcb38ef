"""The loop of passes: the pause between two of them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.decide.incremental.kept import Kept
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.actions import Actions, CreatePod
from gpufleet_operator.model.cluster.changes import Changes
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.jobs import WriteOutcome
from gpufleet_operator.runtime.lanes import Lane
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import MEASUREMENTS_SECONDS, Decide, Reconciler
from gpufleet_testing.agent.virtual_time import in_virtual_time
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

    def room(self, lane: Lane) -> Mapping[str, int]:
        del lane
        return {}


def reconciling(
    cache: Cache,
    runner: Waiting,
    decide: Decide,
    *,
    processor_seconds: Callable[[], float] = lambda: 0.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Reconciler:
    return Reconciler(
        cache,
        runner,
        Limits(),
        ServerClock(lambda: make.NOW),
        Metrics(CollectorRegistry()),
        name_seed=lambda: "salt",
        resync_interval_seconds=60,
        decide=decide,
        processor_seconds=processor_seconds,
        sleep=sleep,
    )


@in_virtual_time
async def test_new_measurements_are_collected_and_other_changes_are_not() -> None:
    """With a pass for each report, 1,000 nodes at rest took a fifth of a core."""
    cache, passes = Cache(), list[tuple[float, frozenset[str]]]()
    loop = asyncio.get_running_loop()

    def decide(snapshot: Snapshot, kept: Kept | None, changes: Changes, index: ClusterIndex) -> tuple[Actions, None]:
        del snapshot, kept, index
        passes.append((loop.time(), frozenset(changes.nodes | changes.measured)))
        return Actions(), None

    def report(node: str, version: int, **fields: Any) -> None:
        cache.telemetry.put(replace(make.telemetry(node, **fields), resource_version=str(version)))

    reconciler = reconciling(cache, Waiting(loop), decide)
    nodes = [f"node-{number}" for number in range(10)]
    for node in nodes:
        report(node, 1)
    task = asyncio.create_task(reconciler.run())
    await asyncio.sleep(5)
    passes.clear()
    began = loop.time()

    for node in nodes:
        report(node, 2, age=0.0)
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    assert [nodes for _, nodes in passes] == [frozenset(nodes)]
    assert passes[0][0] - began == pytest.approx(MEASUREMENTS_SECONDS, abs=0.01)

    passes.clear()
    began = loop.time()
    report("node-1", 3, age=0.5)
    await asyncio.sleep(0.1)
    report("node-2", 3, age=0.0, held={"GPU-2-0": make.pod()})
    await asyncio.sleep(1)
    assert [nodes for _, nodes in passes] == [frozenset({"node-1", "node-2"})]
    assert passes[0][0] - began == pytest.approx(0.1, abs=0.01)

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_decision_knows_the_full_lanes_of_earlier_passes() -> None:
    snapshots: list[Snapshot] = []

    class Full(Waiting):
        def room(self, lane: Lane) -> Mapping[str, int]:
            return {Lane.CREATE: {"ml": 0, "research": 1}, Lane.STATUS: {"ml": 3}}[lane]

    def decide(snapshot: Snapshot, *_: object) -> tuple[Actions, None]:
        snapshots.append(snapshot)
        return Actions(), None

    await reconciling(Cache(), Full(asyncio.get_running_loop()), decide).one_pass()

    (snapshot,) = snapshots
    assert snapshot.previous_state.full_creations == {"ml"}
    assert snapshot.status_room == {"ml": 3}


@in_virtual_time
async def test_measurement_during_a_pass_is_decided_on_soon() -> None:
    cache, passes = Cache(), list[float]()
    loop = asyncio.get_running_loop()
    cache.telemetry.put(make.telemetry())

    class Reporting(Waiting):
        async def run(
            self, actions: Actions, on_write: Callable[[], None] = lambda: None, pause_seconds: float = 0.0
        ) -> list[WriteOutcome]:
            cache.telemetry.put(replace(make.telemetry(age=0.0), resource_version="99"))
            return await super().run(actions, on_write, pause_seconds)

    def decide(*_: object) -> tuple[Actions, None]:
        passes.append(loop.time())
        return Actions(creates=(CreatePod("uid-w", "ml", "w-0", 0, {}),)) if len(passes) == 1 else Actions(), None

    reconciler = reconciling(cache, Reporting(loop), decide)
    cache.dirty.clear()
    task = asyncio.create_task(reconciler.run())
    await asyncio.sleep(5)
    assert len(passes) == 2
    assert passes[1] - passes[0] < MEASUREMENTS_SECONDS + 0.1
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("used", "pause"), [(0.2, 0.15), (0.03, 0.0), (3.0, 0.5)], ids=["as used", "first", "at most"])
async def test_writes_are_sent_during_the_pause_after_a_decision(used: float, pause: float) -> None:
    class Ended(Exception):  # noqa: N818 - ends the loop of the test
        pass

    pauses: list[float] = []
    readings = iter([100.0, 100.0 + used])

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise Ended

    def decide(snapshot: Snapshot, *_: object) -> tuple[Actions, None]:
        del snapshot
        return Actions(creates=(CreatePod("uid-w", "ml", "w-0", 0, {}),)), None

    runner = Waiting(asyncio.get_running_loop())
    reconciler = reconciling(Cache(), runner, decide, processor_seconds=lambda: next(readings), sleep=sleep)

    with pytest.raises(Ended):
        await reconciler.run()

    assert runner.waited > 0.03
    assert runner.pause_seconds == pytest.approx(pause), "the processor time of the decision"
    assert len(pauses) == 1
    assert 0.0 <= pauses[0] <= max(0.0, pause - runner.waited), "the rest of the pause"
