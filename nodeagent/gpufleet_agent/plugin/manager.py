"""Runs the plugins of all resources: one socket each, and one allocation in flight for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.plugin.allocation_observer import AllocationObserver
from gpufleet_agent.plugin.allocator import Allocator, ListingSource, PodMatching
from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.inject.strategies import DeviceInjector
from gpufleet_agent.plugin.server import PluginServer
from gpufleet_agent.plugin.servicer import DevicePlugin
from gpufleet_agent.plugin.transport import check_kubelet_directory
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.resources import Served, partition_resource
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginContext:
    """Dependencies that the plugins of all resources share."""

    directory: Path
    """The kubelet's device plugin directory."""
    devices: Callable[[], tuple[AdvertisedDevice, ...]]
    """Returns the devices of the node, without I/O."""
    devices_changed: VersionSignal
    listings: ListingSource
    telemetry: TelemetryWatch
    holdings: Holdings
    in_flight: InFlightAllocation
    observer: AllocationObserver
    injector: DeviceInjector
    counters: Instruments
    matching: PodMatching = PodMatching.POD_RESOURCES


class PluginManager:
    """Serves every resource of the node.

    Args:
        resources: Which ones, and how. The first is that of whole devices.
        context: What the plugins share.
    """

    def __init__(self, resources: Sequence[Served], context: PluginContext) -> None:
        self._context = context
        self._resource = resources[0].resource
        self._shared_resource = "".join(served.resource for served in resources if served.slots)
        self._servers = [self._make_server(served) for served in resources]
        self._profiles: set[str] = set()

    async def start(self) -> None:
        """Checks that the kubelet's directory exists and that the device files can be written.

        Raises:
            NotADirectoryError: The kubelet's directory does not exist.
            OSError: The CDI file cannot be written, or the file system does not respond.
        """
        check_kubelet_directory(self._context.directory)
        try:
            await self._context.injector.prepare()
        except BaseException:  # also when cancelled: what did not start is not closed by the caller
            with suppress(OSError, TimeoutError):
                # A write that hangs removes the file itself if it ever continues.
                async with asyncio.timeout(0):
                    await self._context.injector.close()
            raise

    def loops(
        self, ready: Callable[[], Awaitable[None]], beat: Callable[[str], Callable[[], None]]
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """Returns the coroutines that must run as long as the agent, by name.

        Args:
            ready: Returns when allocations can be served.
            beat: Returns the function that a loop of a name calls in each iteration.
        """
        names = {_name(server): server for server in self._servers}
        loops: dict[str, Coroutine[Any, Any, None]] = {
            name: server.run(ready, beat(name)) for name, server in names.items()
        }
        return {**loops, **self._context.injector.loops(beat), "partitions": self._serve_partitions(ready, beat)}

    def unregistered(self) -> list[str]:
        """Returns the resources that have devices but no open ListAndWatch stream."""
        # A node without devices has nothing to register.
        return [server.resource for server in self._servers if server.wanted and not server.registered]

    def withheld(self) -> dict[str, str]:
        """Returns, by UUID, why a device without a fault is not allocatable."""
        if not self._context.injector.withholds:
            return {}  # called every second: skips the devices where none can be withheld
        obstacle = self._context.injector.obstacle
        return {device.uuid: why for device in self._context.devices() if (why := obstacle(device))}

    async def close(self) -> None:
        """Stops serving and removes the sockets and the CDI file."""
        # Concurrently, because each server may take its time to end running calls.
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.close())
        finally:
            await self._context.injector.close()

    async def _serve_partitions(
        self, ready: Callable[[], Awaitable[None]], beat: Callable[[str], Callable[[], None]]
    ) -> None:
        """Serves each MIG profile from when its first partition is known, because a driver may take its time."""
        context = self._context
        async with asyncio.TaskGroup() as group:
            while True:
                seen = context.devices_changed.version
                found = {device.profile for device in context.devices() if device.profile is not None}
                for profile in sorted(found - self._profiles):
                    self._profiles.add(profile)
                    server = self._make_server(Served(partition_resource(self._resource, profile), profile=profile))
                    self._servers.append(server)
                    group.create_task(server.run(ready, beat(_name(server))))
                await context.devices_changed.wait(seen)

    def _make_server(self, served: Served) -> PluginServer:
        context = self._context
        plugin = _make_plugin(served, self._shared_resource, context)
        return PluginServer(plugin, context.directory, context.counters)


def _name(server: PluginServer) -> str:
    return f"device plugin {server.resource}"


def _make_plugin(served: Served, shared_resource: str, context: PluginContext) -> DevicePlugin:
    def devices() -> tuple[AdvertisedDevice, ...]:
        usable = context.injector.usable(context.devices())
        return tuple(device for device in usable if device.profile == served.profile)

    allocator = Allocator(
        resource=served.resource,
        shared_resource=shared_resource,
        devices=devices,
        listings=context.listings,
        telemetry=context.telemetry,
        holdings=context.holdings,
        counters=context.counters,
        matching=context.matching,
    )
    return DevicePlugin(
        served=served,
        devices=devices,
        devices_changed=context.devices_changed,
        allocator=allocator,
        in_flight=context.in_flight,
        observer=context.observer,
        injector=context.injector,
        counters=context.counters,
    )
