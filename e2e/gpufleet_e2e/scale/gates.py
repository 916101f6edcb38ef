"""Follows pods, and notes when the gate of each is removed and when it is bound."""

import asyncio
from collections.abc import Callable
from time import monotonic

from gpufleet_e2e.scale.client import AsyncApi
from gpufleet_e2e.support.api import pods


class Gates:
    """The pods of a namespace."""

    def __init__(self, api: AsyncApi, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self.released: dict[str, float] = {}
        """When a pod was first seen without a gate, by the pod's name."""
        self.bound: dict[str, float] = {}
        self.workload: dict[str, str] = {}
        """Name of the workload of each pod."""
        self.existing: set[str] = set()
        self._changed = asyncio.Event()

    async def follow(self) -> None:
        """Runs until cancelled."""
        async for kind, body in self._api.watch(pods(self._namespace)):
            now, meta, spec = monotonic(), body["metadata"], body["spec"]
            name = meta["name"]
            if kind == "DELETED":
                self.existing.discard(name)
            else:
                self.existing.add(name)
                self.workload[name] = meta.get("labels", {}).get("gpufleet.dev/workload", "")
                if not spec.get("schedulingGates"):
                    self.released.setdefault(name, now)
                if spec.get("nodeName"):
                    self.bound.setdefault(name, now)
            self._changed.set()

    def released_of(self, prefix: str) -> dict[str, float]:
        """Returns when pods of the workloads with this prefix were released, by the pod's name."""
        return {name: at for name, at in self.released.items() if self.workload[name].startswith(prefix)}

    async def wait(self, holds: Callable[[], bool], within: float) -> None:
        """Waits until a condition on the pods holds.

        Raises:
            TimeoutError: It does not within so many seconds.
        """
        async with asyncio.timeout(within):
            while not holds():
                self._changed.clear()
                await self._changed.wait()
