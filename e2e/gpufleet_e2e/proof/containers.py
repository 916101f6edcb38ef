"""Runs commands in containers and reads their logs as kubectl does, without a process for each read."""

import json
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

import websocket
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from gpufleet_e2e.proof.errors import EvidenceError

TIMEOUT_SECONDS = 30
_PROTOCOL = "v4.channel.k8s.io"
_STDOUT, _STDERR, _STATUS = 1, 2, 3
"""Channels of the protocol; a message begins with the number of its channel."""


class Containers:
    """Containers of one cluster.

    Args:
        api: A client of a user who may exec and read logs.
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._core = client.CoreV1Api(api)

    def run(self, namespace: str, pod: str, container: str, *command: str) -> str:
        """Runs a command and returns what it prints.

        Raises:
            EvidenceError: It could not be started, failed, or did not end in time.
        """
        where = f"{namespace}/{pod}, container {container}"
        channels: dict[int, bytes] = {}
        try:
            for message in self._messages(namespace, pod, container, command):
                channels[message[0]] = channels.get(message[0], b"") + message[1:]
        except (websocket.WebSocketException, OSError) as error:
            raise EvidenceError(f"exec in {where}: {error}") from error
        status = json.loads(channels.get(_STATUS) or "{}")
        if status.get("status") != "Success":
            words = channels.get(_STDERR, b"").decode(errors="replace").strip()
            raise EvidenceError(f"exec in {where}: {status.get('message', 'the connection ended')} {words}".rstrip())
        return channels.get(_STDOUT, b"").decode(errors="replace")

    def log(self, namespace: str, pod: str, container: str) -> str:
        """Reads the log. Raises EvidenceError when it cannot be read."""
        read: Any = self._core.read_namespaced_pod_log
        try:
            found = read(pod, namespace, container=container, _preload_content=False, _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            raise EvidenceError(f"log of {namespace}/{pod}: {error.status} {error.reason} {error.body}") from error
        except HTTPError as error:  # no response
            raise EvidenceError(f"log of {namespace}/{pod}: {error}") from error
        return str(found.data.decode(errors="replace"))

    def _messages(self, namespace: str, pod: str, container: str, command: Iterable[str]) -> Iterable[bytes]:
        settings = self._api.configuration
        host = settings.host.replace("http", "ws", 1)
        query = [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", w) for w in command)]
        # Where a cluster is behind a proxy, the official client is not configured for it either.
        connection = websocket.create_connection(
            f"{host}/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(query)}",
            timeout=TIMEOUT_SECONDS,
            subprotocols=[_PROTOCOL],
            sslopt={
                "cert_reqs": ssl.CERT_REQUIRED if settings.verify_ssl else ssl.CERT_NONE,
                "ca_certs": settings.ssl_ca_cert,
                "certfile": settings.cert_file,
                "keyfile": settings.key_file,
            },
            http_no_proxy=["*"],
            suppress_origin=True,
        )
        try:
            while True:
                kind, data = connection.recv_data()
                if kind == websocket.ABNF.OPCODE_CLOSE:
                    return
                if data:
                    yield data
        finally:
            connection.shutdown()  # type: ignore[no-untyped-call]  # `close` leaves the socket open after the server's close
