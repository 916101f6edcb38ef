"""Serves the device plugin and keeps it registered, through restarts of the kubelet and loss of sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc.aio
import structlog

from gpufleet_agent.plugin.registration import (
    UNHEARD_SECONDS,
    RegistrationState,
    RegistrationStep,
    identify,
    next_step,
    socket_name,
)
from gpufleet_agent.plugin.servicer import OPTIONS, DevicePlugin
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.proto.channel import unix_address, unix_channel
from gpufleet_agent.proto.deviceplugin import KUBELET_SOCKET, VERSION, RegistrationStub, device_plugin_handler
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.runtime.instruments import Instruments

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""How often the directory is looked at: two calls of stat()."""

REGISTER_SECONDS = 3.0
"""How long one registration may take. The kubelet dials back inside it, for up to 10 s: too long should our socket
have vanished meanwhile."""

GRACE_SECONDS = 0.5
"""How long calls under way may take when the server stops."""

START_PATIENCE_SECONDS = 5.0
"""How long to wait for the reservations before serving. Served without them, every pod would be refused."""


class PluginServer:
    """One resource's socket in the kubelet's device plugin directory.

    Args:
        plugin: What is served.
        directory: The kubelet's device plugin directory.
        counters: Where registrations are counted.
        look_seconds: How often the directory is looked at.
        unheard_seconds: How long the kubelet may take to open its stream.
    """

    def __init__(
        self,
        plugin: DevicePlugin,
        directory: Path,
        counters: Instruments,
        *,
        look_seconds: float = LOOK_SECONDS,
        unheard_seconds: float = UNHEARD_SECONDS,
    ) -> None:
        self._look_seconds = look_seconds
        self._unheard_seconds = unheard_seconds
        self._plugin = plugin
        self.resource = plugin.served.resource
        self._socket = directory / socket_name(self.resource)
        self._kubelet_socket = directory / KUBELET_SOCKET
        self._counters = counters
        self._server: grpc.aio.Server | None = None
        self._standing = RegistrationState()
        self._failing = False

    @property
    def registered(self) -> bool:
        """Whether the kubelet listens to the device list."""
        return self._plugin.listeners > 0

    @property
    def wanted(self) -> bool:
        """Whether there is any device to serve."""
        return self._plugin.has_devices

    async def run(self, ready: Callable[[], Awaitable[None]], beat: Callable[[], None]) -> None:
        """Serve and stay registered, forever.

        Args:
            ready: Returns when allocations can be answered; waited for some seconds only.
            beat: Called each time round.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(START_PATIENCE_SECONDS):
                await ready()
        while True:
            beat()
            await self.step()
            await asyncio.sleep(seconds_to_next_tick(asyncio.get_running_loop().time(), self._look_seconds))

    async def step(self) -> None:
        """Look at what stands in the directory, and do what it calls for."""
        now = asyncio.get_running_loop().time()
        if self.registered:
            self._standing = replace(self._standing, unheard_since=None, unheard_registrations=0)
        elif self._standing.unheard_since is None:
            self._standing = replace(self._standing, unheard_since=now)
        step = next_step(
            self._standing,
            wanted=self._plugin.has_devices,
            ours=identify(self._socket),
            kubelet=identify(self._kubelet_socket),
            now=now,
            unheard_seconds=self._unheard_seconds,
        )
        match step:
            case RegistrationStep.WAIT:
                return
            case RegistrationStep.BIND:
                await self._serve()
                await self.step()
            case RegistrationStep.REGISTER:
                await self._register()

    async def close(self) -> None:
        """Stop serving; the socket is gone afterwards."""
        self._plugin.close()
        await self._stop()

    async def _serve(self) -> None:
        # First stop, then start: a server that stops removes whatever stands at its path, be it another's socket.
        await self._stop()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([device_plugin_handler(self._plugin)])
        # Known to _stop before the first await: a cancellation inside start() would leave the bound socket behind.
        self._server = server
        server.add_insecure_port(unix_address(self._socket))
        await server.start()
        self._standing = replace(self._standing, bound=identify(self._socket), registered_with=None)
        log.info("device plugin serves", socket=str(self._socket), resource=self.resource)

    async def _stop(self) -> None:
        if self._server is not None:
            self._standing = RegistrationState()
            await self._server.stop(GRACE_SECONDS)
            self._server = None  # only now: when the wait is cancelled, the next _stop goes on with it

    async def _register(self) -> None:
        """Try once; what fails is tried again at the next look, for as long as it is still called for."""
        # Looked at before the call: should the kubelet be replaced during it, the next look sees another socket.
        kubelet = identify(self._kubelet_socket)
        request = pb.RegisterRequest(
            version=VERSION, endpoint=self._socket.name, resource_name=self.resource, options=OPTIONS
        )
        try:
            async with unix_channel(self._kubelet_socket) as channel:
                await RegistrationStub(channel).register(request, timeout_seconds=REGISTER_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._counters.registrations.labels(self.resource, "Failed").inc()
            if not self._failing:
                log.warning(
                    "not registered with the kubelet",
                    resource=self.resource,
                    code=error.code().name,
                    details=error.details(),
                )
            self._failing = True
            return
        self._failing = False
        self._counters.registrations.labels(self.resource, "Registered").inc()
        self._standing = replace(
            self._standing,
            registered_with=kubelet,
            unheard_since=asyncio.get_running_loop().time(),
            unheard_registrations=self._standing.unheard_registrations + 1,
        )
        log.info("registered with the kubelet", resource=self.resource)
