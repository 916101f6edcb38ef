"""Reads and writes plain JSON at the apiserver with the official client, as administrator or another user."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from kubernetes import config

from gpufleet_e2e.proof import contract

JsonObject = dict[str, Any]

GROUP = f"/apis/{contract.GROUP}/{contract.VERSION}"
TELEMETRY = f"{GROUP}/{contract.TELEMETRY}"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"

PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Response:
    """A response of the apiserver."""

    status: int
    text: str

    @property
    def allowed(self) -> bool:
        return self.status < 300

    @property
    def body(self) -> JsonObject:
        return dict(json.loads(self.text))

    @property
    def message(self) -> str:
        """The message of a rejection; empty otherwise."""
        return "" if self.allowed else str(json.loads(self.text).get("message", ""))


class Api:
    """A client of the apiserver.

    Args:
        kubeconfig: The administrator's kubeconfig.
        user: The user to impersonate, or None.
    """

    def __init__(self, kubeconfig: Path, user: str | None = None) -> None:
        self._client = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]  # published without types
        self._headers = {"Accept": "application/json"} | ({"Impersonate-User": user} if user else {})

    @property
    def host(self) -> str:
        """The address of the apiserver."""
        return str(urlsplit(self._client.configuration.host).hostname)

    def call(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Response:
        """Sends one request; a rejection is a response, not an exception."""
        url = f"{self._client.configuration.host}{path}"
        headers = {**self._headers, "Content-Type": content_type}
        response = self._client.call_api(method, url, headers, body, _request_timeout=TIMEOUT_SECONDS)
        return Response(response.status, response.read().decode())

    def find(self, path: str) -> JsonObject | None:
        """Reads an object; None when it does not exist."""
        response = self.call("GET", path)
        return None if response.status == 404 else _accepted(response, path).body

    def get(self, path: str) -> JsonObject:
        """Reads an object that must exist."""
        found = self.find(path)
        assert found is not None, f"{path} does not exist"
        return found

    def text(self, path: str) -> str:
        """Reads plain text, such as metrics."""
        return _accepted(self.call("GET", path), path).text

    def list(self, path: str, **query: str) -> list[JsonObject]:
        """Lists objects, with options such as `labelSelector="a=b"`."""
        return list(self.get(f"{path}?{urlencode(query)}" if query else path)["items"])

    def check_gone(self, path: str) -> None:
        """Asserts that an object does not exist."""
        assert self.find(path) is None, f"{path} exists"

    def check_established(self, crd: str) -> None:
        """Asserts that the kind of a CustomResourceDefinition is served."""
        conditions = self.get(f"{CRDS}/{crd}").get("status", {}).get("conditions") or []
        found = {(one["type"], one["status"]) for one in conditions}
        assert ("Established", "True") in found, f"{crd}: {conditions}"

    def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> JsonObject:
        """Creates an object; a rejection fails the test. Unknown fields are rejected."""
        return _accepted(self.try_create(path, body, dry_run=dry_run), path).body

    def try_create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Response:
        """Creates an object, or returns the rejection. Unknown fields are rejected."""
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self.call("POST", path + query, dict(body))

    def patch(self, path: str, body: object, kind: str = "merge") -> JsonObject:
        """Patches an object; a rejection fails the test."""
        return _accepted(self.try_patch(path, body, kind), path).body

    def try_patch(self, path: str, body: object, kind: str = "merge", *, dry_run: bool = False) -> Response:
        """Patches an object, or returns the rejection."""
        return self.call("PATCH", path + ("?dryRun=All" if dry_run else ""), body, PATCHES[kind])

    def delete(self, path: str, *, grace: int | None = None) -> None:
        """Deletes an object in the background; it may be gone already."""
        options: JsonObject = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        response = self.call("DELETE", path, options)
        assert response.allowed or response.status == 404, f"DELETE {path}: {response.status} {response.text}"

    def close(self) -> None:
        self._client.close()


def _accepted(response: Response, path: str) -> Response:
    assert response.allowed, f"{path}: {response.status} {response.text}"
    return response


def apps(namespace: str, kind: str) -> str:
    """Returns the path of a kind of the API group apps."""
    return f"/apis/apps/v1/namespaces/{namespace}/{kind}"


def batch(namespace: str, kind: str = "jobs") -> str:
    """Returns the path of Jobs, or of CronJobs."""
    return f"/apis/batch/v1/namespaces/{namespace}/{kind}"


def pods(namespace: str) -> str:
    """Returns the path of a namespace's pods."""
    return f"{NAMESPACES}/{namespace}/pods"


def services(namespace: str) -> str:
    """Returns the path of a namespace's Services."""
    return f"{NAMESPACES}/{namespace}/services"


def workloads(namespace: str) -> str:
    """Returns the path of a namespace's GPUWorkloads."""
    return f"{GROUP}/namespaces/{namespace}/{contract.WORKLOADS}"


def demands(namespace: str) -> str:
    """Returns the path of a namespace's GPUDemands."""
    return f"{GROUP}/namespaces/{namespace}/gpudemands"


def events(namespace: str) -> str:
    """Returns the path of a namespace's events."""
    return f"{NAMESPACES}/{namespace}/events"
