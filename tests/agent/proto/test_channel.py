"""Calls over a connection that is made again from time to time."""

import asyncio
from pathlib import Path

import pytest
from grpclib.protocol import H2Protocol

from gpufleet_agent.proto import channel as module
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.proto.channel import UnixChannel
from gpufleet_agent.proto.service import service, unary
from gpufleet_agent.proto.socket_server import SocketServer


async def test_connection_is_made_anew_after_many_calls_and_never_under_one(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its streams take memory as long as it is open."""
    monkeypatch.setattr(module, "MAX_CALLS", 3)
    path, peers, gate = short_path / "a.sock", list[H2Protocol](), asyncio.Event()
    gate.set()

    async def answer(request: pb.Empty) -> pb.Empty:
        await gate.wait()
        return request

    server = SocketServer(path, [service("test.Test", {"Call": unary(answer, pb.Empty, pb.Empty)})])
    accept = server._server._protocol_factory

    def count() -> H2Protocol:
        peers.append(accept())
        return peers[-1]

    monkeypatch.setattr(server._server, "_protocol_factory", count)
    await server.start()
    with UnixChannel(path) as channel:

        async def call() -> bytes:
            return await channel.call("/test.Test/Call", pb.Empty(), timeout_seconds=10)

        connections = []
        for _ in range(7):
            assert await call() == b""
            connections.append(len(peers))
        assert connections == [1, 1, 1, 2, 2, 2, 3]
        gate.clear()
        waiting = [asyncio.create_task(call()) for _ in range(5)]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*waiting) == [b""] * 5
        assert len(peers) == 3, "calls were running"
        await call()
        assert len(peers) == 4
    await server.stop(0)
