"""A gRPC server on a unix socket that removes its socket and closes its connections when it stops."""

import asyncio
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from grpclib.const import Handler
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from gpufleet_agent.proto.channel import absolute_path
from gpufleet_agent.proto.service import Service

_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class SocketId:
    """Distinguishes a socket file from a later one of the same name. Inode numbers alone are reused."""

    device: int
    inode: int
    ctime_ns: int

    @property
    def file(self) -> tuple[int, int]:
        """File system and inode. A socket that was relabeled or touched is still the same socket."""
        return self.device, self.inode


def identify(path: Path) -> SocketId | None:
    """Returns the identity of the socket at `path`; None: there is none."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return SocketId(status.st_dev, status.st_ino, status.st_ctime_ns) if stat.S_ISSOCK(status.st_mode) else None


class SocketServer:
    """One server on one socket. The constructor binds the socket, and `start` serves.

    Args:
        path: The socket. An existing socket, of a process that was killed, is replaced.
        services: What to serve.

    Raises:
        OSError: The socket cannot be made.
        ValueError: The path is too long for a unix socket.
    """

    def __init__(self, path: Path, services: Sequence[Service]) -> None:
        self._path = path
        self._calls = _RunningCalls()
        handlers = {name: each for methods in services for name, each in methods.items()}
        self._server = _Server(_Handlers({name: self._calls.counted(each) for name, each in handlers.items()}))
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(absolute_path(path))
            self._socket.listen(_BACKLOG)
        except BaseException:  # of any kind: nothing else would close the socket
            self._socket.close()
            raise
        self._bound = identify(path)
        self._started = False
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Serves from now on. If this is canceled, `stop` must be called."""
        await self._server.start(sock=self._socket, backlog=_BACKLOG)
        self._started = True

    async def stop(self, grace_seconds: float) -> None:
        """Removes the socket and stops serving, also if this is canceled.

        Args:
            grace_seconds: How long running calls may take.
        """
        loop = asyncio.get_running_loop()
        self.unlink()  # first, so that no client finds it any more
        if self._socket.fileno() >= 0:
            loop.remove_reader(self._socket)  # also that of a start that was canceled
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._calls.ended.wait()
        finally:
            # In the next iteration: asyncio leaks a connection that it has accepted just now, if the server is closed
            # before it is set up.
            loop.call_soon(self._close)
        await self._closed.wait()
        if self._started:
            await self._server.wait_closed()

    def unlink(self) -> None:
        """Removes the socket if it is still there, and not another server's."""
        found = identify(self._path)
        if found is not None and self._bound is not None and found.file == self._bound.file:
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._started:
            self._server.close()
        self._server.close_connections()
        self._socket.close()
        self._closed.set()


class _Handlers:
    """Handlers as the library expects them."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def __mapping__(self) -> dict[str, Handler]:
        return dict(self._handlers)


class _RunningCalls:
    """Counts running calls."""

    def __init__(self) -> None:
        self._count = 0
        self.ended = asyncio.Event()
        """Set while no call runs."""
        self.ended.set()

    def counted(self, handler: Handler) -> Handler:
        """Returns the handler wrapped so that its calls are counted."""

        async def call(stream: Any) -> None:
            self._count += 1
            self.ended.clear()
            try:
                await handler.func(stream)
            finally:
                self._count -= 1
                if not self._count:
                    self.ended.set()

        return Handler(call, handler.cardinality, handler.request_type, handler.reply_type)


class _Server(Server):
    """Also closes its connections: the library leaves them open, so a client would not notice the end of the server."""

    def __init__(self, handlers: _Handlers) -> None:
        super().__init__([handlers])
        self._connections: WeakSet[H2Protocol] = WeakSet()

    def close_connections(self) -> None:
        for connection in tuple(self._connections):
            _close(connection)

    def _protocol_factory(self) -> H2Protocol:
        connection = super()._protocol_factory()
        self._connections.add(connection)
        return connection


def _close(connection: H2Protocol) -> None:
    if hasattr(connection, "processor"):
        connection.processor.close("the server has stopped")
    else:  # accepted, but not set up yet
        asyncio.get_running_loop().call_soon(_close, connection)
