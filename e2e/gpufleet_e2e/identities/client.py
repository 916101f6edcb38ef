"""A client of the apiserver: the official client's connection, and one method for any request.

Typed calls would hide status, message and fields of a rejection.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlencode

from kubernetes import client, config

JsonObject = dict[str, Any]

CONTENT_TYPES = {
    "apply": "application/apply-patch+yaml",
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


@dataclass(frozen=True)
class Response:
    """A response of the apiserver."""

    status: int
    body: JsonObject

    @property
    def allowed(self) -> bool:
        return self.status < 300

    @property
    def message(self) -> str:
        """The message of a Status; empty for an object."""
        return str(self.body.get("message", "")) if self.body.get("kind") == "Status" else ""

    @property
    def fields(self) -> set[str]:
        """The fields that a rejection names."""
        return {cause.get("field", "") for cause in (self.body.get("details") or {}).get("causes", [])}


class Client:
    """A client with the kubeconfig's user or a token."""

    def __init__(self, kubeconfig: Path, token: str | None = None) -> None:
        admin = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]  # published without types
        self._headers = {"Accept": "application/json"}
        self._client = admin
        if token is not None:  # without the administrator's certificate, which takes precedence over the token
            bearer = client.Configuration()
            bearer.host, bearer.ssl_ca_cert = admin.configuration.host, admin.configuration.ssl_ca_cert
            self._client = client.ApiClient(bearer)
            self._headers["Authorization"] = f"Bearer {token}"

    def call(
        self, method: str, path: str, body: object = None, kind: str | None = None, **query: str | None
    ) -> Response:
        """Sends one request; `kind` is the type of a patch, `query` contains options such as `dry_run="All"`."""
        options = {_camel(name): value for name, value in query.items() if value is not None}
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(options)}" if options else "")
        headers = {**self._headers, "Content-Type": CONTENT_TYPES[kind] if kind else "application/json"}
        response = self._client.call_api(method, url, headers, body)
        return Response(response.status, json.loads(response.read()))

    def create(self, path: str, body: JsonObject, **query: str | None) -> Response:
        """Creates an object, by default as a dry run; unknown fields are rejected."""
        return self.call("POST", path, body, **{"dry_run": "All", "field_validation": "Strict", **query})

    def patch(self, path: str, body: object, kind: str = "merge", **query: str | None) -> Response:
        """Patches an object, by default as a dry run; unknown fields are rejected."""
        return self.call("PATCH", path, body, kind, **{"dry_run": "All", "field_validation": "Strict", **query})

    def apply(self, path: str, body: JsonObject, *, manager: str, **query: str | None) -> Response:
        """Applies an object server-side with force, by default as a dry run."""
        return self.patch(path, body, "apply", field_manager=manager, force="true", **query)

    def delete(self, path: str, **query: str | None) -> Response:
        """Deletes an object, by default as a dry run."""
        return self.call("DELETE", path, **{"dry_run": "All", **query})

    def get(self, path: str) -> JsonObject:
        """Reads an object that must exist."""
        response = self.call("GET", path)
        assert response.allowed, response.message
        return response.body

    def close(self) -> None:
        self._client.close()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Polls until the condition holds: admission reads policies a moment after they are stored."""
    deadline = monotonic() + seconds
    while not holds():
        assert monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        sleep(0.1)


def wait_until_forbidden(probe: Callable[[], Response], what: str) -> None:
    """Polls until a policy rejects the request."""
    wait_until(lambda: probe().status == HTTPStatus.FORBIDDEN, what)


def assert_allowed(response: Response) -> None:
    """Asserts that the request was allowed."""
    assert response.allowed, response.message


def assert_denied(response: Response, words: str) -> None:
    """Asserts that an admission policy, and not RBAC, rejected the request with this message."""
    assert response.status == HTTPStatus.FORBIDDEN, response.message or response.body
    assert words in response.message
    assert "ValidatingAdmissionPolicy" in response.message
