"""The plugins of all resources put together: a socket each, and one admission for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.plugin.allocation_observer import AllocationObserver
from gpufleet_agent.plugin.allocator import Allocator, PodMatching
from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.inject.strategies import DeviceInjector
from gpufleet_agent.plugin.server import PluginServer
from gpufleet_agent.plugin.servicer import DevicePlugin
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.podresources.client import Lister
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.resources import Served, partition_resource
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginContext:
    """What the plugins of all resources have in common."""

    directory: Path
    """The kubelet's device plugin directory."""
    devices: Callable[[], tuple[AdvertisedDevice, ...]]
    """The devices to advertise, from memory."""
    devices_changed: VersionSignal
    lister: Lister
    own: TelemetryWatch
    holdings: Holdings
    admission: InFlightAllocation
    observer: AllocationObserver
    injection: DeviceInjector
    counters: Instruments
    listed: Callable[[Listing, float], Listing]
    """Called with each list that was made for an allocation, and when by the loop's time; returns the one to go by."""
    handover: PodMatching = PodMatching.ASKING


class PluginManager:
    """Serves every resource of the node.

    Args:
        resources: Which ones, and how. The first is that of whole devices.
        around: What they have in common.
    """

    def __init__(self, resources: Sequence[Served], around: PluginContext) -> None:
        self._around = around
        self._resource = resources[0].resource
        self._shared = "".join(served.resource for served in resources if served.slots)
        self._servers = [self._server(served) for served in resources]
        self._profiles: set[str] = set()

    async def start(self) -> None:
        """See that there is a kubelet, and that files for the container runtime can be written.

        Raises:
            NotADirectoryError: There is no directory of plugin sockets.
            OSError: The CDI file can't be written, or the file system doesn't answer.
        """
        directory = self._around.directory
        if not directory.is_dir():
            raise NotADirectoryError(f"{directory} is not there: is this a node with a kubelet?")
        try:
            await self._around.injection.prepare()
        except BaseException:  # cancelled, too: nobody closes what did not start
            with suppress(OSError, TimeoutError):
                # What hangs takes the file away by itself, should it ever go on.
                async with asyncio.timeout(0):
                    await self._around.injection.close()
            raise

    def loops(
        self, ready: Callable[[], Awaitable[None]], beat: Callable[[str], Callable[[], None]]
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """What has to run for ever, by name.

        Args:
            ready: Returns when allocations can be answered.
            beat: Gives what a loop of this name calls each time round.
        """
        names = {_name(server): server for server in self._servers}
        loops: dict[str, Coroutine[Any, Any, None]] = {
            name: server.run(ready, beat(name)) for name, server in names.items()
        }
        return {**loops, **self._around.injection.loops(beat), "partitions": self._serve_partitions(ready, beat)}

    def unregistered(self) -> list[str]:
        """Resources that have devices and that the kubelet doesn't listen to."""
        # A node without devices has nothing to register.
        return [server.resource for server in self._servers if server.wanted and not server.registered]

    def withheld(self) -> dict[str, str]:
        """The devices that no container can be given although they have no fault, by UUID, and why."""
        if not self._around.injection.withholds:
            return {}  # asked each second: the devices would be looked at for nothing
        obstacle = self._around.injection.obstacle
        return {device.uuid: why for device in self._around.devices() if (why := obstacle(device))}

    async def close(self) -> None:
        """Stop serving; the sockets and the CDI file are gone afterwards."""
        # At once: each may take its time to end the calls under way.
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.close())
        finally:
            await self._around.injection.close()

    async def _serve_partitions(
        self, ready: Callable[[], Awaitable[None]], beat: Callable[[str], Callable[[], None]]
    ) -> None:
        """Serve each kind of partition from when the first one is known: a driver may take its time."""
        around = self._around
        async with asyncio.TaskGroup() as group:
            while True:
                seen = around.devices_changed.version
                found = {device.profile for device in around.devices() if device.profile is not None}
                for profile in sorted(found - self._profiles):
                    self._profiles.add(profile)
                    server = self._server(Served(partition_resource(self._resource, profile), profile=profile))
                    self._servers.append(server)
                    group.create_task(server.run(ready, beat(_name(server))))
                await around.devices_changed.wait(seen)

    def _server(self, served: Served) -> PluginServer:
        around = self._around
        return PluginServer(_plugin(served, self._shared, around), around.directory, around.counters)


def _name(server: PluginServer) -> str:
    return f"device plugin {server.resource}"


def _plugin(served: Served, shared_resource: str, around: PluginContext) -> DevicePlugin:
    def devices() -> tuple[AdvertisedDevice, ...]:
        return tuple(device for device in around.injection.usable(around.devices()) if device.profile == served.profile)

    asking = Allocator(
        resource=served.resource,
        shared_resource=shared_resource,
        devices=devices,
        lister=around.lister,
        own=around.own,
        holdings=around.holdings,
        counters=around.counters,
        listed=around.listed,
        handover=around.handover,
    )
    return DevicePlugin(
        served=served,
        devices=devices,
        devices_changed=around.devices_changed,
        asking=asking,
        admission=around.admission,
        observer=around.observer,
        injection=around.injection,
        counters=around.counters,
    )
