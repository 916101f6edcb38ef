"""A node whose GPUs never come to rest: what waits for one of them to cool must not wait for the others."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from threading import Event, Thread
from time import monotonic

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.gpus import Gpus
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

SOON_SECONDS = 5
BURST = 6
"""Writes that the agent makes in quick succession when a load begins to change."""
QUIET_SECONDS = 2.5
"""Writes that follow each other more slowly than this are what it does when that goes on and on."""


@pytest.fixture
def rare_heartbeats(fleet: Fleet) -> Iterator[None]:
    """Agents whose heartbeats are too rare to help with what is tested, but not so rare that telemetry goes stale."""
    fleet.install(agent_args=["--heartbeat-seconds=13"])
    yield
    fleet.install()


@pytest.mark.usefixtures("rare_heartbeats")
def test_a_device_that_cools_beside_noisy_neighbours(room: Room, fleet: Fleet) -> None:
    """Mechanism: readings of what could be picked are written soon, though a restless node may not write all the time.

    The hot device cools just after a write, when the agent has used up its quick ones: the worst moment.
    """
    node = fleet.nodes[1]
    hot, *neighbours = fleet.gpus[node].uuids
    fleet.gpus[node].report(hot, temperature_celsius=95)
    eventually(lambda: _hot(fleet, node, hot), within=SOON_SECONDS)
    room.apply(gpuworkload("cool-only", uuids=(hot,), requirements={"maxTemperatureCelsius": 80}))
    print(room.wait_condition("cool-only", "Placed", "False", "NoDevices"))
    with _restless(fleet.gpus[node], neighbours):
        _wait_for_the_worst_moment(fleet, node)
        fleet.gpus[node].report(hot, temperature_celsius=60)
        began = monotonic()
        room.wait_for("cool-only", lambda found: objects.is_true(found, "Placed"), SOON_SECONDS)
        print(f"placed {monotonic() - began:.1f} s after it is cool")
        assert room.devices("cool-only") == (hot,)


@contextmanager
def _restless(gpus: Gpus, uuids: list[str]) -> Iterator[None]:
    """The load of these devices jumps until the block ends, and never to where it was a sample of one second ago."""
    over = Event()

    def jump() -> None:
        for percent in cycle((10, 50, 90, 30, 70)):
            for uuid in uuids:
                gpus.report(uuid, utilization_percent=percent)
            if over.wait(0.3):
                return

    thread = Thread(target=jump, name="restless")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait_for_the_worst_moment(fleet: Fleet, node: str) -> None:
    """Until the agent has just written after it had held back: its quick writes are used up."""
    last, at = _observed(fleet, node), monotonic()
    for number in range(60):
        seen = eventually(partial(_written_after, fleet, node, last), within=20, every=0.05)
        if number >= BURST and monotonic() - at > QUIET_SECONDS:
            return
        last, at = seen, monotonic()
    raise AssertionError("the agent writes without a pause")


def _written_after(fleet: Fleet, node: str, last: str) -> str:
    seen = _observed(fleet, node)
    assert seen != last, f"{node} has written nothing since {last}"
    return seen


def _observed(fleet: Fleet, node: str) -> str:
    return str(fleet.telemetry(node)["status"]["observedAt"])


def _hot(fleet: Fleet, node: str, uuid: str) -> None:
    found = next(gpu for gpu in objects.gpus(fleet.telemetry(node)) if gpu.uuid == uuid)
    assert found.temperature_celsius == 95, f"{uuid} is reported at {found.temperature_celsius} C"
