"""Serves the device plugin and keeps it registered, through restarts of the kubelet and loss of sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog
from grpclib import GRPCError

from gpufleet_agent.plugin.registration import (
    WATCH_TIMEOUT_SECONDS,
    RegistrationState,
    RegistrationStep,
    next_step,
    socket_name,
)
from gpufleet_agent.plugin.servicer import OPTIONS, DevicePlugin
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.proto.channel import UnixChannel
from gpufleet_agent.proto.deviceplugin import KUBELET_SOCKET, VERSION, device_plugin_service, register
from gpufleet_agent.proto.socket_server import SocketServer, identify
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.runtime.instruments import Instruments

log = structlog.get_logger(__name__)

CHECK_SECONDS = 1.0
"""How often the directory is checked: two calls of stat()."""

REGISTER_SECONDS = 3.0
"""Timeout of one registration. The kubelet dials back during it, for up to 10 s: too long if the plugin's socket has
vanished in the meantime."""

GRACE_SECONDS = 0.5
"""How long running calls may take when the server stops."""

START_PATIENCE_SECONDS = 5.0
"""How long to wait for the reservations before serving. Without them, every pod would be rejected."""


class PluginServer:
    """One resource's socket in the kubelet's device plugin directory.

    Args:
        plugin: The plugin to serve.
        directory: The kubelet's device plugin directory.
        counters: Counts registrations.
        check_seconds: How often the directory is checked.
        watch_timeout_seconds: Time for the kubelet to open its stream.
    """

    def __init__(
        self,
        plugin: DevicePlugin,
        directory: Path,
        counters: Instruments,
        *,
        check_seconds: float = CHECK_SECONDS,
        watch_timeout_seconds: float = WATCH_TIMEOUT_SECONDS,
    ) -> None:
        self._check_seconds = check_seconds
        self._watch_timeout_seconds = watch_timeout_seconds
        self._plugin = plugin
        self.resource = plugin.served.resource
        self._socket = directory / socket_name(self.resource)
        self._kubelet_socket = directory / KUBELET_SOCKET
        self._counters = counters
        self._server: SocketServer | None = None
        self._state = RegistrationState()
        self._failing = False

    @property
    def registered(self) -> bool:
        """Whether the kubelet has a ListAndWatch stream open."""
        return self._plugin.listeners > 0

    @property
    def wanted(self) -> bool:
        """Whether there is a device to advertise."""
        return self._plugin.has_devices

    async def run(self, ready: Callable[[], Awaitable[None]], beat: Callable[[], None]) -> None:
        """Serves and stays registered, without end.

        Args:
            ready: Returns when allocations can be served; awaited for a few seconds only.
            beat: Called in each iteration.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(START_PATIENCE_SECONDS):
                await ready()
        while True:
            beat()
            await self.step()
            await asyncio.sleep(seconds_to_next_tick(asyncio.get_running_loop().time(), self._check_seconds))

    async def step(self) -> None:
        """Checks the directory and does the next step."""
        now = asyncio.get_running_loop().time()
        state = self._state
        if self.registered:
            if state.unwatched_since is not None or state.unwatched_registrations:
                self._state = replace(state, unwatched_since=None, unwatched_registrations=0)
        elif state.unwatched_since is None:
            self._state = replace(state, unwatched_since=now)
        step = next_step(
            self._state,
            wanted=self._plugin.has_devices,
            ours=identify(self._socket),
            kubelet=identify(self._kubelet_socket),
            now=now,
            watch_timeout_seconds=self._watch_timeout_seconds,
        )
        match step:
            case RegistrationStep.WAIT:
                return
            case RegistrationStep.BIND:
                self._counters.registered.labels(self.resource)  # 0 is exported until the kubelet watches
                await self._serve()
                await self.step()
            case RegistrationStep.REGISTER:
                await self._register()

    async def close(self) -> None:
        """Stops serving and removes the socket."""
        self._plugin.close()
        await self._stop()

    async def _serve(self) -> None:
        # First stop, then start: a server that stops removes the file at its path, even another process's socket.
        await self._stop()
        # Set before the first await, so that a cancellation inside start() does not leave the bound socket behind.
        self._server = SocketServer(self._socket, [device_plugin_service(self._plugin)])
        await self._server.start()
        self._state = replace(self._state, bound=identify(self._socket), registered_with=None)
        log.info("device plugin listening", socket=str(self._socket), resource=self.resource)

    async def _stop(self) -> None:
        if self._server is not None:
            self._state = RegistrationState()
            await self._server.stop(GRACE_SECONDS)
            self._server = None  # only now: if the wait is cancelled, the next _stop continues it

    async def _register(self) -> None:
        """Tries once. A failure is retried at the next check, as long as registering is still the next step."""
        # Identified before the call: if the kubelet is replaced during it, the next check sees another socket.
        kubelet = identify(self._kubelet_socket)
        request = pb.RegisterRequest(
            version=VERSION, endpoint=self._socket.name, resource_name=self.resource, options=OPTIONS
        )
        try:
            with UnixChannel(self._kubelet_socket) as channel:
                await register(channel, request, timeout_seconds=REGISTER_SECONDS)
        except GRPCError as error:
            self._counters.registrations.labels(self.resource, "Failed").inc()
            if not self._failing:
                log.warning(
                    "registration with kubelet failed",
                    resource=self.resource,
                    code=error.status.name,
                    details=error.message,
                )
            self._failing = True
            return
        self._failing = False
        self._counters.registrations.labels(self.resource, "Registered").inc()
        self._state = replace(
            self._state,
            registered_with=kubelet,
            unwatched_since=asyncio.get_running_loop().time(),
            unwatched_registrations=self._state.unwatched_registrations + 1,
        )
        log.info("registered with kubelet", resource=self.resource)
