"""Serves the driver on its two sockets, and keeps both in place."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from gpufleet_agent.dra.servicer import DraDriverServicer
from gpufleet_agent.proto.dra import driver_services, registration_service
from gpufleet_agent.proto.socket_server import SocketServer, identify
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_api.names import DRA_DRIVER

log = structlog.get_logger(__name__)

CHECK_SECONDS = 1.0
"""How often the sockets are checked: two calls of stat()."""
GRACE_SECONDS = 0.5
"""How long running calls may take when the server stops."""


BoundSockets = tuple[tuple[int, int] | None, tuple[int, int] | None]
"""The files of the driver's and of the registration's socket."""


@dataclass(frozen=True, slots=True)
class DriverSockets:
    """Paths of the sockets, which the kubelet sees at the same paths."""

    plugins_dir: Path
    """The kubelet's directory of plugin sockets."""
    registry_dir: Path
    """The kubelet's directory of registration sockets, which it watches."""

    @property
    def driver(self) -> Path:
        return self.plugins_dir / DRA_DRIVER / "dra.sock"

    @property
    def registration(self) -> Path:
        return self.registry_dir / f"{DRA_DRIVER}-reg.sock"


class DriverServer:
    """The driver's sockets.

    Args:
        servicer: What to serve.
        sockets: Where.
    """

    def __init__(self, servicer: DraDriverServicer, sockets: DriverSockets) -> None:
        self._servicer = servicer
        self._sockets = sockets
        self._servers: list[SocketServer] = []
        self._bound: BoundSockets = (None, None)

    async def run(self, beat: Callable[[], None]) -> None:
        """Serves without end; calls `beat` in each iteration."""
        while True:
            beat()
            await self.step()
            await asyncio.sleep(seconds_to_next_tick(asyncio.get_running_loop().time(), CHECK_SECONDS))

    async def step(self) -> None:
        """Serves on new sockets if one is missing or is not this process's."""
        if None in self._bound or self._found() != self._bound:
            await self._serve()

    async def close(self) -> None:
        """Stops serving and removes the sockets; the kubelet then unregisters the driver."""
        self._servicer.close()
        await self._stop()

    async def _serve(self) -> None:
        # First stop, then start: a server that stops removes the file at its path, even another process's socket.
        await self._stop()
        self._servicer.registered = False
        # The driver's socket first: the kubelet dials it as soon as it has found the other one.
        for path, services in (
            (self._sockets.driver, driver_services(self._servicer)),
            (self._sockets.registration, (registration_service(self._servicer),)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._servers.append(SocketServer(path, services))
            await self._servers[-1].start()
        self._bound = self._found()
        log.info("DRA driver listening", socket=str(self._sockets.driver), driver=DRA_DRIVER)

    async def _stop(self) -> None:
        self._bound = (None, None)
        try:
            while self._servers:
                # The registration first, so that the kubelet does not find it without its driver.
                await self._servers[-1].stop(GRACE_SECONDS)
                self._servers.pop()
        finally:
            for server in self._servers:  # if the wait was canceled, the next _stop continues it
                server.unlink()

    def _found(self) -> BoundSockets:
        return _file(self._sockets.driver), _file(self._sockets.registration)


def _file(path: Path) -> tuple[int, int] | None:
    found = identify(path)
    return found.file if found is not None else None
