"""A device plugin put together as the agent does it, with reservations and devices that a test sets."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.plugin.allocator import Allocator, PodMatching
from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.inject.strategies import DeviceInjector, DeviceListStrategy, InjectorSettings
from gpufleet_agent.plugin.manager import PluginContext
from gpufleet_agent.plugin.server import PluginServer
from gpufleet_agent.plugin.servicer import DevicePlugin
from gpufleet_agent.plugin.types import AdvertisedDevice, ManagedAllocation, Rejection, UnmanagedAllocation
from gpufleet_agent.podresources.client import ListingError, PodResourcesClient
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.resources import Served
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_testing.agent.kube_apis import FailingObjectApi
from gpufleet_testing.agent.kubelet import FakeKubelet

SLOTS = 3

DEVICES = tuple(
    AdvertisedDevice(f"GPU-{index}", index, healthy=True, nodes=(f"/dev/nvidia{index}",)) for index in range(8)
)


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
            assert self._going_on.wait(60), "the disk was never released"
            write()
        finally:
            with self._count:
                self.writing -= 1


class PluginRig:
    """The plugins of both resources with everything around them."""

    def __init__(
        self,
        directory: Path,
        pod_resources: Path,
        matching: PodMatching,
        injection: InjectorSettings,
        patience_seconds: float = 20,
    ) -> None:
        self.api = FailingObjectApi()
        self.devices = DEVICES
        self.devices_changed = VersionSignal()
        self.registry = CollectorRegistry()
        self.in_flight = InFlightAllocation(expiry_seconds=20, settle_seconds=0.01)
        self.own = TelemetryWatch(self.api, VersionSignal(), random.Random(0))  # noqa: S311 - jitter
        self.holdings = Holdings(SHARED_RESOURCE)
        self.on_ready: Callable[[], Awaitable[object]] = self.own.refresh
        self.allocations: list[ManagedAllocation | UnmanagedAllocation] = []
        self.rejections: list[Rejection] = []
        self.lister = PodResourcesClient(pod_resources)
        self.counters = Instruments(self.registry, "test")
        self.injector = DeviceInjector(
            injection, self.known, self.devices_changed, check_seconds=0.05, patience_seconds=patience_seconds
        )
        self.server, self.shared_server = (
            PluginServer(
                self.make_plugin(served, matching),
                directory,
                self.counters,
                check_seconds=0.05,
                watch_timeout_seconds=0.3,
            )
            for served in (Served(RESOURCE), Served(SHARED_RESOURCE, SLOTS))
        )

    async def ready(self) -> None:
        await self.on_ready()

    def make_plugin(self, served: Served, matching: PodMatching) -> DevicePlugin:
        allocator = Allocator(
            resource=served.resource,
            shared_resource=SHARED_RESOURCE,
            devices=self.usable,
            listings=self,
            telemetry=self.own,
            holdings=self.holdings,
            counters=self.counters,
            matching=matching,
        )
        return DevicePlugin(
            served=served,
            devices=self.usable,
            devices_changed=self.devices_changed,
            allocator=allocator,
            in_flight=self.in_flight,
            observer=self,
            injector=self.injector,
            counters=self.counters,
        )

    def known(self) -> tuple[AdvertisedDevice, ...]:
        return self.devices

    def usable(self) -> tuple[AdvertisedDevice, ...]:
        return self.injector.usable(self.devices)

    async def list_for_allocation(self, timeout_seconds: float) -> Listing:
        began = asyncio.get_running_loop().time()
        try:
            listing = await self.lister.list(timeout_seconds)
        except ListingError:
            self.counters.listing_failures.labels("Allocation").inc()
            raise
        self.holdings.update(listing, began)
        return listing

    def advertise(self, *devices: AdvertisedDevice) -> None:
        self.devices = devices
        self.devices_changed.notify()

    def allocated(self, allocation: ManagedAllocation | UnmanagedAllocation) -> None:
        self.allocations.append(allocation)
        if isinstance(allocation, ManagedAllocation):
            self.holdings.add(allocation.assignment)

    def rejected(self, rejection: Rejection) -> None:
        self.rejections.append(rejection)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def make_driver(folder: Path) -> Path:
    """Builds a driver root below `folder` with nodes for nine GPUs, and no nvidia-uvm yet."""
    driver = folder / "driver"
    (driver / "dev").mkdir(parents=True)
    for name in (*(f"nvidia{minor}" for minor in range(9)), "nvidiactl"):
        (driver / "dev" / name).touch()
    return driver


def injection_settings(folder: Path, *strategies: DeviceListStrategy, **fields: object) -> InjectorSettings:
    """Builds settings for the driver below `folder`, which is made unless it exists."""
    driver = folder / "driver" if (folder / "driver").exists() else make_driver(folder)
    usual: dict[str, Any] = {"driver_root": driver, "cdi_root": folder / "cdi"}
    return InjectorSettings(strategies=frozenset(strategies), **{**usual, **fields})


def plugin_context(kubelet: FakeKubelet, rig: PluginRig, injector: DeviceInjector | None = None) -> PluginContext:
    """Builds the context of a manager that serves the rig's devices, by default with the rig's injector."""
    return PluginContext(
        directory=kubelet.device_plugins,
        devices=rig.known,
        devices_changed=rig.devices_changed,
        listings=rig,
        telemetry=rig.own,
        holdings=rig.holdings,
        in_flight=rig.in_flight,
        observer=rig,
        injector=injector or rig.injector,
        counters=rig.counters,
    )


@asynccontextmanager
async def running_plugin(
    kubelet: FakeKubelet,
    matching: PodMatching = PodMatching.POD_RESOURCES,
    *,
    shared: bool = False,
    injection: InjectorSettings | None = None,
    patience_seconds: float = 20,
) -> AsyncIterator[PluginRig]:
    """Runs a plugin that serves the kubelet, whether or not that has started.

    With `shared`, the plugin of slots runs as well.
    """
    settings = injection or InjectorSettings()
    rig = PluginRig(kubelet.device_plugins, kubelet.pod_resources, matching, settings, patience_seconds)
    servers = [rig.server, rig.shared_server] if shared else [rig.server]
    while True:
        with suppress(TimeoutError):  # on a busy machine it takes longer than the patience of a test
            await rig.injector.prepare()
            break
    loops = [server.run(rig.ready, lambda: None) for server in servers]
    loops += rig.injector.loops(lambda _: lambda: None).values()
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
        await rig.injector.close()


@asynccontextmanager
async def serving_plugin(
    kubelet: FakeKubelet,
    matching: PodMatching = PodMatching.POD_RESOURCES,
    *,
    shared: bool = False,
    injection: InjectorSettings | None = None,
) -> AsyncIterator[PluginRig]:
    """Runs the kubelet and a plugin that it has the devices of."""
    async with kubelet, running_plugin(kubelet, matching, shared=shared, injection=injection) as rig:
        await kubelet.until(kubelet.serving)
        yield rig


@asynccontextmanager
async def idle_plugin(kubelet: FakeKubelet) -> AsyncIterator[PluginRig]:
    """The same, without a running plugin."""
    rig = PluginRig(kubelet.device_plugins, kubelet.pod_resources, PodMatching.POD_RESOURCES, InjectorSettings())
    yield rig
    await rig.lister.close()
