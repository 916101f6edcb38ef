"""The collections that decisions depend on, and when all of them are listed."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.store import Store, Stored
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, retry_forever
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import GoneError, NotFoundError, UnavailableError
from gpufleet_operator.kube.informer import Informer
from gpufleet_operator.model.claims.resource_claim import ResourceClaim
from gpufleet_operator.model.cluster.agent_lease import AgentLease
from gpufleet_operator.model.demands.gpu_demand import Demand
from gpufleet_operator.model.objects import BoundPod, Node, Pod, ResourceQuota, Service, Telemetry, Workload

_SHORT_WATCH_SECONDS = 30

T = TypeVar("T", bound=Stored)


@dataclass(slots=True)
class Informers:
    """The collections that decisions depend on."""

    workloads: Informer[Workload]
    telemetry: Informer[Telemetry]
    pods: Informer[Pod]
    nodes: Informer[Node]
    other_pods: Informer[BoundPod]
    services: Informer[Service]
    claims: Informer[ResourceClaim]
    demands: Informer[Demand]
    """No decision waits for it."""
    quotas: Informer[ResourceQuota]
    agent_leases: Informer[AgentLease]
    pods_listed: asyncio.Event = field(default_factory=asyncio.Event)
    telemetry_listed: asyncio.Event = field(default_factory=asyncio.Event)
    nodes_listed: asyncio.Event = field(default_factory=asyncio.Event)
    other_pods_listed: asyncio.Event = field(default_factory=asyncio.Event)
    services_listed: asyncio.Event = field(default_factory=asyncio.Event)
    claims_listed: asyncio.Event = field(default_factory=asyncio.Event)
    demands_listed: asyncio.Event = field(default_factory=asyncio.Event)
    quotas_listed: asyncio.Event = field(default_factory=asyncio.Event)
    agent_leases_listed: asyncio.Event = field(default_factory=asyncio.Event)
    """Also set if they may not be read: agents without permission to write them report instead."""
    complete: bool = False
    """Every collection was listed."""

    @classmethod
    def of(
        cls,
        api: Api,
        cache: Cache,
        failed: Callable[[], None],
        *,
        namespace: str,
        clock: ServerClock,
        stale_after_seconds: float,
    ) -> "Informers":
        """Connects each collection to its store.

        Args:
            api: The apiserver.
            cache: The stores.
            failed: Called after each failed watch.
            namespace: Of the agents, whose Leases are there.
            clock: Of the apiserver.
            stale_after_seconds: Age from which telemetry is stale.
        """
        short = max(1, min(_SHORT_WATCH_SECONDS, int(stale_after_seconds / 3)))

        def informer(path: str, params: Mapping[str, str], store: Store[T]) -> Informer[T]:
            return Informer(api, path, params, store, failed=failed)

        def prompt(path: str, params: Mapping[str, str], store: Store[T]) -> Informer[T]:
            """Keeps a store of which the outage of the watch is noticed before the first node counts as stale."""

            def heard() -> None:
                cache.heard_at[path] = clock.now()

            return Informer(api, path, params, store, failed=failed, watch_seconds=short, heard=heard)

        return cls(
            workloads=informer(paths.WORKLOADS, {}, cache.workloads),
            telemetry=prompt(paths.TELEMETRIES, {}, cache.telemetry),
            pods=informer(paths.PODS, paths.OF_WORKLOADS, cache.pods),
            nodes=informer(paths.NODES, {}, cache.nodes),
            other_pods=informer(paths.PODS, paths.OTHER_PODS, cache.other_pods),
            services=informer(paths.SERVICES, paths.OF_WORKLOADS, cache.services),
            claims=informer(paths.CLAIMS, paths.OF_WORKLOADS, cache.claims),
            demands=informer(paths.DEMANDS, {}, cache.demands),
            quotas=informer(paths.QUOTAS, {}, cache.quotas),
            agent_leases=prompt(paths.leases(namespace), paths.OF_AGENTS, cache.agent_leases),
        )

    async def follow_devices(self) -> None:
        """Lists and watches pods and GPUTelemetry until cancelled.

        Pods come first: a released pod must never be seen before its reservation.

        Raises:
            ApiError: The apiserver rejects a list or a watch.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.pods.run(self.pods_listed.set))
            await self.pods_listed.wait()
            with _installed_crds():
                await self.telemetry.run(self.telemetry_listed.set)

    async def fill(self) -> None:
        """Returns when every collection is listed, GPUWorkloads last.

        Raises:
            ApiError: The apiserver rejects the list of GPUWorkloads.
        """
        await self.pods_listed.wait()
        await self.telemetry_listed.wait()
        await _list_until_complete(self.workloads)
        await self.nodes_listed.wait()
        await self.other_pods_listed.wait()
        await self.services_listed.wait()
        await self.claims_listed.wait()
        await self.quotas_listed.wait()
        await self.agent_leases_listed.wait()
        self.complete = True

    async def list_until_complete(self) -> None:
        """Lists pods, GPUTelemetry and GPUWorkloads again, in this order, and retries while there is no response.

        Raises:
            ApiError: The apiserver rejects a list.
        """
        await _list_until_complete(self.pods, self.telemetry, self.workloads)


async def _list_until_complete(*informers: Informer[Pod] | Informer[Telemetry] | Informer[Workload]) -> None:
    """Lists collections one after the other, and all of them again after one had no response."""
    async for attempt in retry_forever(UnavailableError, GoneError):
        with attempt, _installed_crds():
            for informer in informers:
                await informer.list()


@contextlib.contextmanager
def _installed_crds() -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        raise NotFoundError("the gpufleet.dev CRDs are not installed", error.code) from error
