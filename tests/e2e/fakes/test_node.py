"""The port that the fakes reserve for the agent."""

import asyncio
import socket

from gpufleet_e2e.fakes.node import reserved_port


async def test_reserved_port_is_given_only_on_request() -> None:

    with reserved_port() as port:
        others = [socket.create_server(("127.0.0.1", 0)) for _ in range(200)]
        assert port not in {other.getsockname()[1] for other in others}
        for other in others:
            other.close()
        with socket.socket() as careless:
            assert careless.connect_ex(("127.0.0.1", port)) != 0
            assert careless.connect_ex(("127.0.0.1", port)) != 0
        # As the agent does.
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
