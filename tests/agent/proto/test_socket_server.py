"""Sockets are told apart, and removed with their server, however it is stopped. A real gRPC client calls it."""

import asyncio
import gc
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpclib import GRPCError, Status

from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.proto.service import Service, service, streaming, unary
from gpufleet_agent.proto.socket_server import SocketServer, identify
from gpufleet_e2e.fakes.grpc_sockets import unix_channel


def called(function: Callable[[pb.Empty], Awaitable[pb.Empty]]) -> Service:
    return service("test.Test", {"Call": unary(function, pb.Empty, pb.Empty)})


async def call(path: Path) -> pb.Empty:
    async with unix_channel(path) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[pb.Empty, pb.Empty] = channel.unary_unary(
            "/test.Test/Call", pb.Empty.SerializeToString, pb.Empty.FromString
        )
        return await method(pb.Empty(), timeout=10)


class Held:
    """A method whose calls end when the test says so."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.canceled = False

    async def __call__(self, request: pb.Empty) -> pb.Empty:
        self.began.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.canceled = True
            raise
        return pb.Empty()


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


async def test_a_canceled_stop_leaves_no_socket_and_no_connection(short_path: Path) -> None:
    path, held = short_path / "a.sock", Held()
    server = SocketServer(path, [called(held)])
    await server.start()
    calling = asyncio.create_task(call(path))
    await held.began.wait()
    stopping = asyncio.create_task(server.stop(60))
    await asyncio.sleep(0)
    assert not path.exists()
    stopping.cancel()
    await asyncio.wait([stopping])
    assert stopping.cancelled()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await calling
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert held.canceled


async def test_a_running_call_is_answered_before_the_server_stops(short_path: Path) -> None:
    path, held = short_path / "a.sock", Held()
    server = SocketServer(path, [called(held)])
    await server.start()
    calling = asyncio.create_task(call(path))
    await held.began.wait()
    stopping = asyncio.create_task(server.stop(60))
    await asyncio.sleep(0)
    held.may_end.set()
    assert await calling == pb.Empty()
    await stopping


async def test_a_call_that_takes_longer_than_the_grace_is_ended(short_path: Path) -> None:
    path, held = short_path / "a.sock", Held()
    server = SocketServer(path, [called(held)])
    await server.start()
    calling = asyncio.create_task(call(path))
    await held.began.wait()
    await server.stop(0.01)
    with pytest.raises(grpc.aio.AioRpcError):
        await calling
    assert held.canceled


async def test_an_idle_connection_ends_with_the_server(short_path: Path) -> None:
    """Otherwise the kubelet would call a plugin that has ended."""
    path = short_path / "a.sock"

    async def answer(request: pb.Empty) -> pb.Empty:
        return request

    server = SocketServer(path, [called(answer)])
    await server.start()
    async with unix_channel(path) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[pb.Empty, pb.Empty] = channel.unary_unary(
            "/test.Test/Call", pb.Empty.SerializeToString, pb.Empty.FromString
        )
        await method(pb.Empty(), timeout=10)
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        await server.stop(0)
        async with asyncio.timeout(10):
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        assert channel.get_state() is not grpc.ChannelConnectivity.READY


async def test_an_error_of_a_method_reaches_the_client_with_its_words(short_path: Path) -> None:
    path = short_path / "a.sock"

    async def reject(request: pb.Empty) -> pb.Empty:
        raise GRPCError(Status.FAILED_PRECONDITION, "Größe: 2 \u2260 1")

    server = SocketServer(path, [called(reject)])
    await server.start()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(path)
    assert (raised.value.code(), raised.value.details()) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Größe: 2 \u2260 1",
    )
    await server.stop(0)


async def test_a_stream_is_closed_as_soon_as_the_client_hangs_up(short_path: Path) -> None:
    path, closed = short_path / "a.sock", asyncio.Event()

    async def watch(request: pb.Empty) -> AsyncGenerator[pb.Empty, None]:
        try:
            while True:
                yield request
                await asyncio.Event().wait()
        finally:
            closed.set()

    server = SocketServer(path, [service("test.Test", {"Watch": streaming(watch, pb.Empty, pb.Empty)})])
    await server.start()
    async with unix_channel(path) as channel:
        method: grpc.aio.UnaryStreamMultiCallable[pb.Empty, pb.Empty] = channel.unary_stream(
            "/test.Test/Watch", pb.Empty.SerializeToString, pb.Empty.FromString
        )
        async for message in method(pb.Empty()):
            assert message == pb.Empty()
            break
    async with asyncio.timeout(10):
        await closed.wait()
    await server.stop(0)


async def test_the_socket_of_a_process_that_was_killed_is_replaced(short_path: Path) -> None:
    path = short_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))

    async def answer(request: pb.Empty) -> pb.Empty:
        return request

    server = SocketServer(path, [called(answer)])
    await server.start()
    assert await call(path) == pb.Empty()
    await server.stop(0)


@pytest.mark.parametrize("iterations", range(6))
async def test_a_connection_of_this_moment_is_closed_as_well(short_path: Path, iterations: int) -> None:
    """asyncio leaks it, and warns, if the server is closed between its acceptance and its protocol."""
    path = short_path / "a.sock"
    server = SocketServer(path, [])
    await server.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        for _ in range(iterations):
            await asyncio.sleep(0)
        await server.stop(0)
        client.settimeout(10)

        def read_to_the_end() -> None:
            with suppress(ConnectionResetError):
                while client.recv(1000):
                    pass

        await asyncio.to_thread(read_to_the_end)
    gc.collect()


async def test_a_server_that_never_started_leaves_no_socket(short_path: Path) -> None:
    path = short_path / "a.sock"
    await SocketServer(path, []).stop(0)
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
