"""gRPC over unix sockets by gRPC's own library: another implementation than the agent's, as the kubelet's is."""

from pathlib import Path

import grpc.aio

from gpufleet_agent.proto.channel import absolute_path

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""As in the kubelet's own clients and servers."""


def unix_address(socket: Path) -> str:
    """Returns the gRPC address of a unix socket."""
    return f"unix://{absolute_path(socket)}"


def unix_channel(socket: Path) -> grpc.aio.Channel:
    """Returns a lazy channel to a unix socket."""
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # gRPC would send the percent-encoded path.
        ("grpc.default_authority", "localhost"),
        # A unix socket has no proxy.
        ("grpc.enable_http_proxy", 0),
        # Channels to the same path must not share a connection, which may be to a plugin that has ended.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(unix_address(socket), options=options)
