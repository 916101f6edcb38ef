"""Creates and deletes workloads in parallel: sizes 1, 2 and 4, half of the pods deleted by force."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import monotonic

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import pods
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

SIZES = (1, 1, 2, 4)
WORKERS = 6
IGNORES_SIGTERM = ("sh", "-c", "exec sleep 1000000")
"""As process 1 of its namespace it does not receive SIGTERM, and runs until SIGKILL."""

READY_SECONDS = 60
"""Longest time until a workload has its devices under this load."""


class Churn:
    """Runs for some seconds and leaves one workload of each worker.

    Args:
        namespace: Where the workloads are created.
        seed: Decides sizes and ways of deletion.
    """

    def __init__(self, namespace: TestNamespace, seed: int) -> None:
        self._namespace = namespace
        self._seed = seed
        self.done: Counter[str] = Counter()
        """Number of operations by kind."""

    def run(self, seconds: float) -> list[str]:
        """Runs for this long; returns the names of the workloads that are left."""
        end = monotonic() + seconds
        with ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(lambda worker: self._work(worker, end), range(WORKERS)))

    def _work(self, worker: int, end: float) -> str:
        random = Random(f"{self._seed}/{worker}")  # noqa: S311 - a seeded sequence, not a secret
        for name in self._names(worker):
            template = pod_spec(container(command=IGNORES_SIGTERM)) if random.random() < 0.5 else None
            self._namespace.apply(gpuworkload(name, count=random.choice(SIZES), template=template))
            self.done["created"] += 1
            # Some are deleted before they have their devices: those under admission are the hard ones.
            if random.random() < 0.7:
                self._wait(name)
            if monotonic() > end:
                return name
            forced = random.random() < 0.5
            if forced and random.random() < 0.3:
                self._replace(name)
            self._delete(name, forced=forced)
        raise AssertionError("the names are endless")

    def _names(self, worker: int) -> Iterator[str]:
        number = 0
        while True:
            yield f"churn-{worker}-{number}"
            number += 1

    def _wait(self, name: str) -> None:
        self._namespace.wait_for(name, lambda found: objects.is_true(found, "Ready"), READY_SECONDS)
        self.done["confirmed"] += 1

    def _replace(self, name: str) -> None:
        """Deletes the pods by force while the workload stays: each replica must get a new pod."""
        before = {pod["metadata"]["uid"] for pod in self._namespace.pods(name)}
        self._kill(name)

        def replaced() -> None:
            now = {pod["metadata"]["uid"] for pod in self._namespace.pods(name)}
            assert now - before, f"{name} has no new pod; {self._namespace.describe(name)}"

        eventually(replaced, within=READY_SECONDS)
        self.done["replaced"] += 1

    def _delete(self, name: str, *, forced: bool) -> None:
        self._namespace.delete(name)
        if forced:
            self._kill(name)
        self.done["deleted by force" if forced else "deleted"] += 1

    def _kill(self, name: str) -> None:
        for pod in self._namespace.pods(name):
            self._namespace.fleet.api.delete(f"{pods(self._namespace.name)}/{pod['metadata']['name']}", grace=0)
