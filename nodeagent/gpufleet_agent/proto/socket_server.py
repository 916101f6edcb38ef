"""A gRPC server on a unix socket that removes its socket when it stops."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from gpufleet_agent.proto.channel import unix_address


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
        status = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return SocketId(status.st_dev, status.st_ino, status.st_ctime_ns) if stat.S_ISSOCK(status.st_mode) else None


class SocketServer:
    """One server on one socket. It is bound as soon as this is made, and serves after `start`.

    Args:
        path: The socket.
        handlers: What to serve.

    Raises:
        ValueError: The path is too long for a unix socket.
    """

    def __init__(self, path: Path, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._path = path
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(handlers)
        self._server.add_insecure_port(unix_address(path))
        self._bound = identify(path)

    async def start(self) -> None:
        """Serves from now on. If this is canceled, `stop` must be called."""
        await self._server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Stops serving and removes the socket, also if this is canceled; it may then be called again.

        gRPC removes the file in a thread of its own, some time after its stop() has returned or was canceled.

        Args:
            grace_seconds: How long running calls may take.
        """
        try:
            await self._server.stop(grace_seconds)
        finally:
            self.unlink()

    def unlink(self) -> None:
        """Removes the socket if it is still there, and not another server's."""
        found = identify(self._path)
        if found is not None and self._bound is not None and found.file == self._bound.file:
            self._path.unlink(missing_ok=True)
