"""Calls methods over unix sockets, as the kubelet and its plugins do."""

from pathlib import Path
from typing import Any, Final, Self

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

MAX_SOCKET_PATH = 107
"""Length limit of a unix socket's path on Linux, in bytes."""
MAX_CALLS = 1000
"""Maximum number of calls of a connection: h2 keeps 160 bytes of each of the last 65,536 streams."""


def absolute_path(socket: Path) -> str:
    """Returns the absolute path of a unix socket.

    Raises:
        ValueError: The path is too long for a unix socket.
    """
    path = str(socket.absolute())
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise ValueError(f"socket path {path} must have at most {MAX_SOCKET_PATH} bytes")
    return path


class _EncodedResponses(CodecBase):
    """Leaves responses encoded: a response that equals the last one need not be decoded."""

    __content_subtype__ = "proto"

    def encode(self, message: Message, message_type: Any) -> bytes:
        del message_type
        return message.SerializeToString()

    def decode(self, data: bytes, message_type: Any) -> bytes:
        del message_type
        return data


class UnixChannel:
    """A connection to a unix socket, opened by the first call.

    The next call opens it again after it was lost or became old. Must be made and used in one event loop.

    Args:
        socket: The socket.

    Raises:
        ValueError: The path is too long for a unix socket.
    """

    def __init__(self, socket: Path) -> None:
        self._path: Final = absolute_path(socket)
        self._channel = self._unconnected()
        self._calls = 0
        """Number of calls on this connection."""
        self._running = 0

    async def call(self, method: str, request: Message, *, timeout_seconds: float) -> bytes:
        """Calls a unary method; returns the encoded response.

        Args:
            method: `/SERVICE/METHOD`.
            request: The request.
            timeout_seconds: Timeout of the connection and the call together.

        Raises:
            GRPCError: What the server responded. UNAVAILABLE: there is no connection, or it was lost.
                DEADLINE_EXCEEDED: no response within the timeout.
        """
        if self._calls >= MAX_CALLS and not self._running:
            self.close()
            self._channel, self._calls = self._unconnected(), 0
        self._calls += 1
        self._running += 1
        try:
            return await self._call(method, request, timeout_seconds)
        finally:
            self._running -= 1

    async def _call(self, method: str, request: Message, timeout_seconds: float) -> bytes:
        unary: UnaryUnaryMethod[Message, Any] = UnaryUnaryMethod(self._channel, method, type(request), bytes)
        try:
            response: bytes = await unary(request, timeout=timeout_seconds)
        except TimeoutError as error:
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"no response within {timeout_seconds:g} s") from error
        except OSError as error:
            raise GRPCError(Status.UNAVAILABLE, error.strerror or str(error)) from error
        except (StreamTerminatedError, ProtocolError, H2Error) as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from error
        return response

    def _unconnected(self) -> Channel:
        return Channel(path=self._path, codec=_EncodedResponses())

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
