"""Channels and addresses for unix sockets, the only way that the kubelet and its plugins talk."""

from pathlib import Path

import grpc.aio

MAX_SOCKET_PATH = 107
"""Longest path of a unix socket on Linux, in bytes."""


def unix_address(socket: Path) -> str:
    """The gRPC address of a unix socket.

    Raises:
        ValueError: The path is too long for a unix socket.
    """
    path = str(socket.absolute())
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise ValueError(f"a unix socket's path has at most {MAX_SOCKET_PATH} bytes: {path}")
    return f"unix://{path}"


def unix_channel(socket: Path) -> grpc.aio.Channel:
    """A lazy channel to a unix socket: it connects on the first call and again after a failure."""
    options = [
        # grpc-go refuses the percent-encoded path that gRPC's C core would send as authority.
        ("grpc.default_authority", "localhost"),
        # The kubelet is back within seconds of a restart; the default backoff grows to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # No proxy and no service configuration stand between a process and a file.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        # Channels to the same path must not share a connection: one may be to a kubelet that is gone.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(unix_address(socket), options=options)
