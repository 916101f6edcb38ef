"""Reads from the apiserver what the start of a cluster waits for."""

import http.client
import json
import ssl
from typing import Any

from gpufleet_testbed.local.layout import API_PORT, Layout


class ApiClient:
    """A client of the apiserver, as administrator."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        self._context.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")

    def get(self, path: str) -> tuple[int, bytes]:
        """Returns status and body of a GET request; status 0 without an answer."""
        connection = http.client.HTTPSConnection(self._layout.api_address, API_PORT, timeout=5, context=self._context)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except OSError:  # refused, reset or too slow: it is starting
            return 0, b""
        finally:
            connection.close()

    @property
    def ready(self) -> bool:
        """Whether /readyz returns 200."""
        return self.get("/readyz")[0] == 200

    @property
    def has_default_account(self) -> bool:
        """Whether pods can be created in the default namespace."""
        return self.get("/api/v1/namespaces/default/serviceaccounts/default")[0] == 200

    def ready_nodes(self) -> set[str]:
        """Returns the names of the nodes whose Ready condition is True."""
        status, body = self.get("/api/v1/nodes")
        return ready_nodes(json.loads(body)) if status == 200 else set()


def ready_nodes(listing: dict[str, Any]) -> set[str]:
    """Returns the names of the ready nodes in a NodeList."""
    return {
        node["metadata"]["name"]
        for node in listing["items"]
        for condition in node["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    }


def healthy(address: str, port: int) -> bool:
    """Returns whether http://address:port/healthz returns 200."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
