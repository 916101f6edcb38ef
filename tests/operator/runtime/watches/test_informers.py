"""The order in which the collections are listed."""

import asyncio
from collections.abc import Callable
from typing import Any

from gpufleet_operator.runtime.watches.informers import Informers


class Collection:
    """A collection whose list ends when `respond` is set."""

    def __init__(self, name: str, begun: list[str]) -> None:
        self.name, self.begun = name, begun
        self.respond = asyncio.Event()

    async def run(self, listed: Callable[[], None]) -> None:
        self.begun.append(self.name)
        await self.respond.wait()
        listed()
        await asyncio.Event().wait()

    async def list(self) -> str:
        self.begun.append(self.name)
        return "1"


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_pods_are_listed_before_reservations_and_workloads_last() -> None:
    """A released pod must never be seen before its reservation."""
    begun: list[str] = []
    pods, telemetry, workloads = (Collection(name, begun) for name in ("pods", "telemetry", "workloads"))
    unused: Any = None
    api: dict[str, Any] = {"pods": pods, "telemetry": telemetry, "workloads": workloads}
    informers = Informers(
        **api,
        nodes=unused,
        other_pods=unused,
        services=unused,
        claims=unused,
        demands=unused,
        quotas=unused,
        agent_leases=unused,
    )
    for other in ("nodes", "other_pods", "services", "claims", "quotas", "agent_leases"):
        getattr(informers, f"{other}_listed").set()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(informers.follow_devices())
        filling = tasks.create_task(informers.fill())
        await _settle()
        assert begun == ["pods"]
        pods.respond.set()
        await _settle()
        assert begun == ["pods", "telemetry"]
        telemetry.respond.set()
        await filling
        assert begun == ["pods", "telemetry", "workloads"]
        assert informers.complete
        following.cancel()
