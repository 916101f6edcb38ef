"""Reads the apiserver as the ServiceAccount of this pod, where there is no kubectl."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gpufleet_cli.cluster.connection import Connection
from gpufleet_cli.cluster.failures import failure
from gpufleet_cli.errors import ClusterError

FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_OK = 200
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class ApiserverResponse:
    """Body of a response, and the time by the apiserver's clock, as in the header `Date`."""

    text: str
    date: str


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Credentials and apiserver of a pod."""

    host: str
    port: int
    timeout_seconds: int

    @classmethod
    def of_this_pod(cls, timeout_seconds: int) -> "ServiceAccount | None":
        """Returns the ServiceAccount of this pod; None: not in a pod, or its token is not mounted."""
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not port.isdigit() or not (FOLDER / "token").is_file():
            return None
        return cls(host, int(port), timeout_seconds)

    def namespace(self) -> str:
        """Returns the namespace of this pod."""
        try:
            return (FOLDER / "namespace").read_text(encoding="utf-8").strip() or "default"
        except OSError:
            return "default"

    def get(self, path: str, connection: Connection) -> ApiserverResponse:
        """Returns the response to GET, as the user and groups that a connection impersonates.

        Raises:
            ClusterError: The apiserver does not respond, or responds with an error.
        """
        import ssl  # noqa: PLC0415 - outside of pods it is not needed, and its import takes long
        from http.client import HTTPException, HTTPSConnection  # noqa: PLC0415 - as above

        try:
            # The kubelet replaces the token before it expires.
            token = (FOLDER / "token").read_text(encoding="utf-8").strip()
            trusted = ssl.create_default_context(cafile=FOLDER / "ca.crt")
            client = HTTPSConnection(self.host, self.port, timeout=self.timeout_seconds, context=trusted)
            try:
                client.putrequest("GET", path)
                for name, value in _headers(token, connection):
                    client.putheader(name, value)
                client.endheaders()
                response = client.getresponse()
                text, date = response.read().decode(), response.getheader("Date") or ""
            finally:
                client.close()
        except (OSError, HTTPException) as error:
            where = f"{self.host}:{self.port}"
            raise ClusterError(f"no cluster responds: {where}, the apiserver of this pod: {error}") from error
        if response.status != _OK:
            raise failure(_as_kubectl(text, response.status, response.reason), path)
        return ApiserverResponse(text, date)


def server_time(response: ApiserverResponse) -> datetime | None:
    """Returns the time of a response; None: it has none."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - as above

    try:
        return parsedate_to_datetime(response.date)
    except ValueError:
        return None


def _headers(token: str, connection: Connection) -> Iterator[tuple[str, str]]:
    yield "Authorization", f"Bearer {token}"
    yield "Accept", "application/json"
    if connection.user:
        yield "Impersonate-User", connection.user
    yield from (("Impersonate-Group", group) for group in connection.groups)


def _as_kubectl(text: str, code: int, reason: str) -> str:
    """Returns an error as kubectl prints it."""
    try:
        status = json.loads(text)
        return f"Error from server ({status['reason']}): {status['message']}"
    except (ValueError, KeyError, TypeError):
        if code == _NOT_FOUND:  # of a kind that does not exist
            text = "the server could not find the requested resource"
        return f"Error from server ({reason.replace(' ', '')}): {text.strip() or code}"
