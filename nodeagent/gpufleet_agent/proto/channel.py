"""gRPC channels and addresses of unix sockets, which the kubelet and its plugins communicate over."""

from pathlib import Path

import grpc.aio

MAX_SOCKET_PATH = 107
"""Length limit of a unix socket's path on Linux, in bytes."""


def unix_address(socket: Path) -> str:
    """Returns the gRPC address of a unix socket.

    Raises:
        ValueError: The path is too long for a unix socket.
    """
    path = str(socket.absolute())
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise ValueError(f"socket path {path} must have at most {MAX_SOCKET_PATH} bytes")
    return f"unix://{path}"


MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""As in the kubelet's own clients: a node with many pods lists more than gRPC's default of 4 MiB."""


def unix_channel(socket: Path) -> grpc.aio.Channel:
    """Returns a lazy channel to a unix socket: it connects on the first call and again after a failure."""
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # grpc-go rejects the percent-encoded path that gRPC's C core would send as authority.
        ("grpc.default_authority", "localhost"),
        # The kubelet is back within seconds of a restart; the default backoff grows to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A unix socket has no proxy and no service configuration.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        # Pings that estimate the bandwidth: a list every few seconds does not need them.
        ("grpc.http2.bdp_probe", 0),
        # Channels to the same path must not share a connection, which may be to a kubelet that has ended.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(unix_address(socket), options=options)
