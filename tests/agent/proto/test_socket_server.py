"""Sockets are told apart, and removed with their server, however it is stopped."""

import asyncio
import socket
from pathlib import Path

import grpc.aio
import pytest

from gpufleet_agent.proto.socket_server import SocketServer, identify


class SlowServer:
    """A server of gRPC that is bound and, as with a call that goes on, does not come to its end."""

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        pass

    def add_insecure_port(self, address: str) -> None:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(address.removeprefix("unix://"))

    async def stop(self, grace_seconds: float) -> None:
        await asyncio.Event().wait()


def test_socket_is_distinct_from_its_successor_and_from_a_file(short_path: Path) -> None:
    path = short_path / "a.sock"
    assert identify(path) is None
    path.touch()
    assert identify(path) is None
    path.unlink()
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(path))
        before = identify(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as second:
        second.bind(str(path))
        assert before is not None
        assert identify(path) not in {None, before}


async def test_a_canceled_stop_leaves_no_socket(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc.aio, "server", SlowServer)
    path = short_path / "a.sock"
    server = SocketServer(path, [])
    stopping = asyncio.create_task(server.stop(1))
    await asyncio.sleep(0)
    assert path.exists()
    stopping.cancel()
    await asyncio.wait([stopping])
    assert stopping.cancelled()
    assert not path.exists()


async def test_the_socket_of_another_server_stays(short_path: Path) -> None:
    path = short_path / "a.sock"
    first = SocketServer(path, [])
    await first.start()
    path.rename(short_path / "old.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        found = identify(path)
        first.unlink()
        assert found is not None
        assert identify(path) == found
    await first.stop(0)
