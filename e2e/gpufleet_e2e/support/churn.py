"""Workloads that come and go, in several hands at once: sizes 1, 2 and 4, half of the deletions of pods forced."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import monotonic

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import pods
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

SIZES = (1, 1, 2, 4)
HANDS = 6
DEAF = ("sh", "-c", "exec sleep 1000000")
"""As process 1 of its namespace it doesn't hear the signal to end, and lives until it is killed."""

LEAVE_SECONDS = 60
"""Longest time in which a workload must have come to its devices, in the middle of all this."""


class Churn:
    """Runs for some seconds and leaves one workload of each hand standing.

    Args:
        room: Where.
        seed: Decides sizes and ways of deletion.
    """

    def __init__(self, room: Room, seed: int) -> None:
        self._room = room
        self._seed = seed
        self.done: Counter[str] = Counter()
        """How often each thing was done."""

    def run(self, seconds: float) -> list[str]:
        """Churn, then return the names of the workloads that are left."""
        end = monotonic() + seconds
        with ThreadPoolExecutor(HANDS) as pool:
            return list(pool.map(lambda hand: self._hand(hand, end), range(HANDS)))

    def _hand(self, hand: int, end: float) -> str:
        random = Random(f"{self._seed}/{hand}")  # noqa: S311 - a seeded course of events, no secret
        for name in self._names(hand):
            deaf = pod_spec(container(command=DEAF)) if random.random() < 0.5 else None
            self._room.apply(gpuworkload(name, count=random.choice(SIZES), template=deaf))
            self.done["created"] += 1
            # Some are deleted before they have come to their devices: those in admission are the hard ones.
            if random.random() < 0.7:
                self._wait(name)
            if monotonic() > end:
                return name
            forced = random.random() < 0.5
            if forced and random.random() < 0.3:
                self._replace(name)
            self._delete(name, forced=forced)
        raise AssertionError("names don't end")

    def _names(self, hand: int) -> Iterator[str]:
        number = 0
        while True:
            yield f"churn-{hand}-{number}"
            number += 1

    def _wait(self, name: str) -> None:
        self._room.wait_for(name, lambda found: objects.is_true(found, "Ready"), LEAVE_SECONDS)
        self.done["confirmed"] += 1

    def _replace(self, name: str) -> None:
        """Force a pod away while its workload stays: the replica must come back as another pod."""
        before = {pod["metadata"]["uid"] for pod in self._room.pods(name)}
        self._kill(name)

        def another() -> None:
            now = {pod["metadata"]["uid"] for pod in self._room.pods(name)}
            assert now - before, f"{name} has no new pod; {self._room.words(name)}"

        eventually(another, within=LEAVE_SECONDS)
        self.done["replaced"] += 1

    def _delete(self, name: str, *, forced: bool) -> None:
        self._room.delete(name)
        if forced:
            self._kill(name)
        self.done["deleted by force" if forced else "deleted"] += 1

    def _kill(self, name: str) -> None:
        for pod in self._room.pods(name):
            self._room.fleet.api.delete(f"{pods(self._room.namespace)}/{pod['metadata']['name']}", grace=0)
