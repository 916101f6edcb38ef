"""The plugins of all resources put together: a socket each, and one admission for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpufleet_agent.changes import Changes
from gpufleet_agent.kube.own import OwnObject
from gpufleet_agent.metrics.counters import Counters
from gpufleet_agent.plugin.admission import Admission
from gpufleet_agent.plugin.answers import KnownDevice, Managed, Refusal, Unmanaged
from gpufleet_agent.plugin.asking import Asking, Handover
from gpufleet_agent.plugin.injection import Injection
from gpufleet_agent.plugin.server import PluginServer
from gpufleet_agent.plugin.service import DevicePlugin
from gpufleet_agent.podresources.client import Lister
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.resources import Served


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the plugins of all resources have in common."""

    directory: Path
    """The kubelet's device plugin directory."""
    devices: Callable[[], tuple[KnownDevice, ...]]
    """The devices to advertise, from memory."""
    devices_changed: Changes
    lister: Lister
    own: OwnObject
    holdings: Holdings
    admission: Admission
    granted: Callable[[Managed | Unmanaged], None]
    """Called with what a pod was given, before the kubelet hears of it."""
    refused: Callable[[Refusal], None]
    """Called with why a pod was given nothing, likewise."""
    injection: Injection
    counters: Counters
    handover: Handover = Handover.ASKING


class Plugins:
    """Serves every resource of the node.

    Args:
        resources: Which ones, and how.
        around: What they have in common.
    """

    def __init__(self, resources: Sequence[Served], around: Surroundings) -> None:
        self._directory = around.directory
        self._injection = around.injection
        shared = "".join(served.resource for served in resources if served.slots)
        self._servers = [
            PluginServer(_plugin(served, shared, around), around.directory, around.counters) for served in resources
        ]

    async def start(self) -> None:
        """See that there is a kubelet, and that files for the container runtime can be written.

        Raises:
            NotADirectoryError: There is no directory of plugin sockets.
            OSError: The CDI file can't be written.
        """
        if not self._directory.is_dir():
            raise NotADirectoryError(f"{self._directory} is not there: is this a node with a kubelet?")
        self._injection.prepare()

    def loops(
        self, ready: Callable[[], Awaitable[None]], beat: Callable[[str], Callable[[], None]]
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """What has to run for ever, by name.

        Args:
            ready: Returns when allocations can be answered.
            beat: Gives what a loop of this name calls each time round.
        """
        names = {f"device plugin {server.resource}": server for server in self._servers}
        return {name: server.run(ready, beat(name)) for name, server in names.items()}

    def unregistered(self) -> list[str]:
        """Resources that have devices and that the kubelet doesn't listen to."""
        # A node without devices has nothing to register.
        return [server.resource for server in self._servers if server.wanted and not server.registered]

    async def close(self) -> None:
        """Stop serving; the sockets and the CDI file are gone afterwards."""
        # At once: each may take its time to end the calls under way.
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.close())
        finally:
            self._injection.close()


def _plugin(served: Served, shared_resource: str, around: Surroundings) -> DevicePlugin:
    asking = Asking(
        resource=served.resource,
        shared_resource=shared_resource,
        devices=around.devices,
        lister=around.lister,
        own=around.own,
        holdings=around.holdings,
        counters=around.counters,
        handover=around.handover,
    )
    return DevicePlugin(
        served=served,
        devices=around.devices,
        devices_changed=around.devices_changed,
        asking=asking,
        admission=around.admission,
        granted=around.granted,
        refused=around.refused,
        injection=around.injection,
        counters=around.counters,
    )
