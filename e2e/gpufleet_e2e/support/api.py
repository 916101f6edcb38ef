"""The apiserver as plain JSON over the official client, as the administrator or as somebody else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kubernetes import config

from gpufleet_e2e.proof import contract

JsonObject = dict[str, Any]

GROUP = f"/apis/{contract.GROUP}/{contract.VERSION}"
TELEMETRY = f"{GROUP}/{contract.TELEMETRY}"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"

PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """What the apiserver said."""

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
        """Of a refusal."""
        return "" if self.allowed else str(json.loads(self.text).get("message", ""))


class Api:
    """One user of the apiserver.

    Args:
        kubeconfig: The administrator's.
        user: Whom to impersonate; None: nobody.
    """

    def __init__(self, kubeconfig: Path, user: str | None = None) -> None:
        self._client = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]  # published without types
        self._headers = {"Accept": "application/json"} | ({"Impersonate-User": user} if user else {})

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Answer:
        """One request; a refusal is an answer, not an exception."""
        url = f"{self._client.configuration.host}{path}"
        headers = {**self._headers, "Content-Type": content_type}
        answer = self._client.call_api(method, url, headers, body, _request_timeout=SECONDS)
        return Answer(answer.status, answer.read().decode())

    def find(self, path: str) -> JsonObject | None:
        """The object, or None when it isn't there."""
        answer = self.call("GET", path)
        return None if answer.status == 404 else _accepted(answer, path).body

    def get(self, path: str) -> JsonObject:
        """The object, which must be there."""
        found = self.find(path)
        assert found is not None, f"{path} is not there"
        return found

    def text(self, path: str) -> str:
        """A page of plain text, such as metrics."""
        return _accepted(self.call("GET", path), path).text

    def list(self, path: str, **query: str) -> list[JsonObject]:
        """The items, with options such as `labelSelector="a=b"`."""
        return list(self.get(f"{path}?{urlencode(query)}" if query else path)["items"])

    def create(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """Create; a refusal fails the test. Unknown fields are refused."""
        return _accepted(self.try_create(path, body), path).body

    def try_create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Create; the answer may be a refusal. Unknown fields are refused."""
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self.call("POST", path + query, dict(body))

    def patch(self, path: str, body: Any, kind: str = "merge") -> JsonObject:
        """Patch; a refusal fails the test."""
        return _accepted(self.try_patch(path, body, kind), path).body

    def try_patch(self, path: str, body: Any, kind: str = "merge", *, dry_run: bool = False) -> Answer:
        """Patch; the answer may be a refusal."""
        return self.call("PATCH", path + ("?dryRun=All" if dry_run else ""), body, PATCHES[kind])

    def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete in the background; what isn't there is deleted already."""
        options: JsonObject = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        answer = self.call("DELETE", path, options)
        assert answer.allowed or answer.status == 404, f"DELETE {path}: {answer.status} {answer.text}"

    def close(self) -> None:
        self._client.close()


def _accepted(answer: Answer, path: str) -> Answer:
    assert answer.allowed, f"{path}: {answer.status} {answer.text}"
    return answer


def pods(namespace: str) -> str:
    """Path of a namespace's pods."""
    return f"{NAMESPACES}/{namespace}/pods"


def workloads(namespace: str) -> str:
    """Path of a namespace's GPUWorkloads."""
    return f"{GROUP}/namespaces/{namespace}/{contract.WORKLOADS}"


def events(namespace: str) -> str:
    """Path of a namespace's events."""
    return f"{NAMESPACES}/{namespace}/events"
