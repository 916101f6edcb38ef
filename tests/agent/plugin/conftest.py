"""A device plugin put together as the agent does it, with reservations and devices that a test sets."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_agent.changes import Changes
from gpufleet_agent.kube.api import KubeError
from gpufleet_agent.kube.model import Assignment, TelemetryObject
from gpufleet_agent.kube.own import OwnObject
from gpufleet_agent.metrics.counters import Counters
from gpufleet_agent.plugin.admission import Admission
from gpufleet_agent.plugin.answers import KnownDevice, Managed, Refusal, Unmanaged
from gpufleet_agent.plugin.asking import Asking, Handover
from gpufleet_agent.plugin.injection import Injection, InjectionSettings
from gpufleet_agent.plugin.server import PluginServer
from gpufleet_agent.plugin.service import DevicePlugin
from gpufleet_agent.podresources.client import ListingError, PodResourcesClient
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.resources import Served
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE

SLOTS = 3

DEVICES = tuple(KnownDevice(f"GPU-{index}", index, healthy=True, nodes=(f"/dev/nvidia{index}",)) for index in range(8))


class FakeApi:
    """The object in the cluster; reads can be made to fail or to take their time."""

    def __init__(self) -> None:
        self.object = TelemetryObject("uid-node", 1, 1)
        self.away = False
        self.delay_seconds = 0.0
        self.reads = 0

    def reserve(self, *assignments: Assignment) -> None:
        current = self.object
        self.object = TelemetryObject(current.uid, current.generation + 1, current.resource_version + 1, assignments)

    async def get(self) -> TelemetryObject:
        self.reads += 1
        await asyncio.sleep(self.delay_seconds)
        if self.away:
            raise KubeError("away")
        return self.object

    async def ensure(self) -> TelemetryObject:
        return await self.get()

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        raise NotImplementedError

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        yield self.object

    async def close(self) -> None:
        pass


class Rig:
    """The plugins of both resources with everything around them."""

    listing_error = ListingError

    def __init__(self, directory: Path, pod_resources: Path, handover: Handover, injection: InjectionSettings) -> None:
        self.api = FakeApi()
        self.devices = DEVICES
        self.devices_changed = Changes()
        self.registry = CollectorRegistry()
        self.admission = Admission(expiry_seconds=0.5, settle_seconds=0.01)
        self.own = OwnObject(self.api, Changes(), random.Random(0))  # noqa: S311 - jitter
        self.holdings = Holdings(SHARED_RESOURCE)
        self.grants: list[Managed | Unmanaged] = []
        self.refusals: list[Refusal] = []
        self.lister = PodResourcesClient(pod_resources)
        self.counters = Counters(self.registry, "test")
        self.injection = Injection(injection, self.known, look_seconds=0.05)
        self.server, self.shared_server = (
            PluginServer(
                self.make_plugin(served, handover), directory, self.counters, look_seconds=0.05, unheard_seconds=0.3
            )
            for served in (Served(RESOURCE), Served(SHARED_RESOURCE, SLOTS))
        )

    def make_plugin(self, served: Served, handover: Handover) -> DevicePlugin:
        asking = Asking(
            resource=served.resource,
            shared_resource=SHARED_RESOURCE,
            devices=self.usable,
            lister=self.lister,
            own=self.own,
            holdings=self.holdings,
            counters=self.counters,
            listed=self.listed,
            handover=handover,
        )
        return DevicePlugin(
            served=served,
            devices=self.usable,
            devices_changed=self.devices_changed,
            asking=asking,
            admission=self.admission,
            granted=self.grant,
            refused=self.refusals.append,
            injection=self.injection,
            counters=self.counters,
        )

    def known(self) -> tuple[KnownDevice, ...]:
        return self.devices

    def usable(self) -> tuple[KnownDevice, ...]:
        return self.injection.usable(self.devices)

    def listed(self, listing: Listing, began: float) -> Listing:
        self.holdings.update(listing, began)
        return listing

    def tell(self, *devices: KnownDevice) -> None:
        self.devices = devices
        self.devices_changed.notify()

    def grant(self, granted: Managed | Unmanaged) -> None:
        self.grants.append(granted)
        if isinstance(granted, Managed):
            self.holdings.honour(granted.assignment)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def ready(self) -> None:
        await self.own.refresh()


MakeRig = Callable[..., Any]


@pytest.fixture
def running(kubelet: Any) -> MakeRig:
    """`async with running() as rig:`: a plugin that serves the test's kubelet, whether or not that has started.

    With `shared=True`, the plugin of slots runs beside it.
    """

    @asynccontextmanager
    async def run(
        handover: Handover = Handover.ASKING, *, shared: bool = False, injection: InjectionSettings | None = None
    ) -> AsyncIterator[Rig]:
        rig = Rig(kubelet.device_plugins, kubelet.pod_resources, handover, injection or InjectionSettings())
        servers = [rig.server, rig.shared_server] if shared else [rig.server]
        loops = [server.run(lambda: rig.ready(), lambda: None) for server in servers]  # noqa: PLW0108 - tests replace it
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield rig
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for server in servers:
                await server.close()
            await rig.lister.close()

    return run


@pytest.fixture
def idle_rig(kubelet: Any) -> MakeRig:
    """`async with idle_rig() as rig:`: the same with no plugin running."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Rig]:
        rig = Rig(kubelet.device_plugins, kubelet.pod_resources, Handover.ASKING, InjectionSettings())
        yield rig
        await rig.lister.close()

    return make
