"""A device plugin put together as the agent does it, with reservations and devices that a test sets."""

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_agent.kube.api import KubeError
from gpufleet_agent.kube.model import Assignment, TelemetryObject
from gpufleet_agent.kube.telemetry_watch import OwnObject
from gpufleet_agent.metrics.instruments import Counters
from gpufleet_agent.plugin.allocator import Asking, Handover
from gpufleet_agent.plugin.in_flight import Admission
from gpufleet_agent.plugin.inject.cdi import CdiFile
from gpufleet_agent.plugin.inject.strategies import Injection, InjectionSettings, Strategy
from gpufleet_agent.plugin.server import PluginServer
from gpufleet_agent.plugin.servicer import DevicePlugin
from gpufleet_agent.plugin.types import KnownDevice, Managed, Refusal, Unmanaged
from gpufleet_agent.podresources.client import ListingError, PodResourcesClient
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.resources import Served
from gpufleet_agent.runtime.version_signal import Changes
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE

SLOTS = 3

DEVICES = tuple(KnownDevice(f"GPU-{index}", index, healthy=True, nodes=(f"/dev/nvidia{index}",)) for index in range(8))


class Disk:
    """Where CDI files are written: a real one that can be made to hang, as a network mount or a dying disk does."""

    def __init__(self) -> None:
        self.writing = 0
        self.most_at_once = 0
        self.writes = 0
        self._going_on = threading.Event()
        self._going_on.set()
        self._count = threading.Lock()

    def hang(self) -> None:
        self._going_on.clear()

    def go_on(self) -> None:
        self._going_on.set()

    def write(self, write: Callable[[], None]) -> None:
        with self._count:
            self.writes += 1
            self.writing += 1
            self.most_at_once = max(self.most_at_once, self.writing)
        try:
            assert self._going_on.wait(60), "nobody made the disk go on"
            write()
        finally:
            with self._count:
                self.writing -= 1


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

    def __init__(
        self,
        directory: Path,
        pod_resources: Path,
        handover: Handover,
        injection: InjectionSettings,
        patience_seconds: float = 20,
    ) -> None:
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
        self.injection = Injection(
            injection, self.known, self.devices_changed, look_seconds=0.05, patience_seconds=patience_seconds
        )
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
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """What all CDI files of the test are written to."""
    disk, write = Disk(), CdiFile.write
    monkeypatch.setattr(CdiFile, "write", lambda self, devices: disk.write(lambda: write(self, devices)))
    yield disk
    disk.go_on()


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., InjectionSettings]:
    """Settings with a driver that has nodes for nine GPUs, and no nvidia-uvm yet."""
    driver = tmp_path / "driver"
    (driver / "dev").mkdir(parents=True)
    for name in (*(f"nvidia{minor}" for minor in range(9)), "nvidiactl"):
        (driver / "dev" / name).touch()

    def make(*strategies: Strategy, **fields: Any) -> InjectionSettings:
        usual: dict[str, Any] = {"driver_root": driver, "cdi_root": tmp_path / "cdi"}
        return InjectionSettings(strategies=frozenset(strategies), **{**usual, **fields})

    return make


@pytest.fixture
def running(kubelet: Any) -> MakeRig:
    """`async with running() as rig:`: a plugin that serves the test's kubelet, whether or not that has started.

    With `shared=True`, the plugin of slots runs beside it.
    """

    @asynccontextmanager
    async def run(
        handover: Handover = Handover.ASKING,
        *,
        shared: bool = False,
        injection: InjectionSettings | None = None,
        patience_seconds: float = 20,
    ) -> AsyncIterator[Rig]:
        settings = injection or InjectionSettings()
        rig = Rig(kubelet.device_plugins, kubelet.pod_resources, handover, settings, patience_seconds)
        servers = [rig.server, rig.shared_server] if shared else [rig.server]
        loops = [server.run(lambda: rig.ready(), lambda: None) for server in servers]  # noqa: PLW0108 - tests replace it
        await rig.injection.prepare()
        loops += rig.injection.loops(lambda _: lambda: None).values()
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
            await rig.injection.close()

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
