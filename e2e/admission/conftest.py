"""Callers of the apiserver with identities of their own, and a cluster with the chart installed.

Nearly everything here is a dry run: it passes authorization, admission and validation like the real thing, and leaves
the cluster as it was.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlencode

import pytest
from kubernetes import client, config

from cluster import Cluster
from demo.install import helm_words
from demo.stage import SYSTEM_NAMESPACE

JsonObject = dict[str, Any]

NAMESPACE = "e2e-admission"
GROUP = "/apis/gpufleet.dev/v1alpha1"
TELEMETRY = f"{GROUP}/gputelemetries"
WORKLOADS = f"{GROUP}/namespaces/{NAMESPACE}/gpuworkloads"

CONTENT_TYPES = {
    "apply": "application/apply-patch+yaml",
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


@dataclass(frozen=True)
class Answer:
    """What the apiserver said."""

    status: int
    body: JsonObject

    @property
    def allowed(self) -> bool:
        return self.status < 300

    @property
    def message(self) -> str:
        """Of a Status; empty for an object."""
        return str(self.body.get("message", "")) if self.body.get("kind") == "Status" else ""

    @property
    def fields(self) -> set[str]:
        """The fields that a refusal points at."""
        return {cause.get("field", "") for cause in (self.body.get("details") or {}).get("causes", [])}


class Caller:
    """Someone who talks to the apiserver: the kubeconfig's user, or the bearer of a token."""

    def __init__(self, kubeconfig: Path, token: str | None = None) -> None:
        admin = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]  # published without types
        self._headers = {"Accept": "application/json"}
        self._client = admin
        if token is not None:  # without the administrator's certificate, which would win over the token
            bearer = client.Configuration()
            bearer.host, bearer.ssl_ca_cert = admin.configuration.host, admin.configuration.ssl_ca_cert
            self._client = client.ApiClient(bearer)
            self._headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None, kind: str | None = None, **query: Any) -> Answer:
        """One request; `kind` is the kind of patch, `query` holds options such as `dry_run="All"`."""
        options = {_camel(name): value for name, value in query.items() if value is not None}
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(options)}" if options else "")
        headers = {**self._headers, "Content-Type": CONTENT_TYPES[kind] if kind else "application/json"}
        answer = self._client.call_api(method, url, headers, body)
        return Answer(answer.status, json.loads(answer.read()))

    def create(self, path: str, body: JsonObject, **query: Any) -> Answer:
        """Dry run unless told otherwise; unknown fields are refused."""
        return self.call("POST", path, body, **{"dry_run": "All", "field_validation": "Strict", **query})

    def patch(self, path: str, body: Any, kind: str = "merge", **query: Any) -> Answer:
        """Dry run unless told otherwise; unknown fields are refused."""
        return self.call("PATCH", path, body, kind, **{"dry_run": "All", "field_validation": "Strict", **query})

    def apply(self, path: str, body: JsonObject, *, manager: str, **query: Any) -> Answer:
        """Server-side apply with force; dry run unless told otherwise."""
        return self.patch(path, body, "apply", field_manager=manager, force="true", **query)

    def delete(self, path: str, **query: Any) -> Answer:
        """Dry run unless told otherwise."""
        return self.call("DELETE", path, **{"dry_run": "All", **query})

    def get(self, path: str) -> JsonObject:
        """The object, which must be there."""
        answer = self.call("GET", path)
        assert answer.allowed, answer.message
        return answer.body

    def close(self) -> None:
        self._client.close()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Ask until it holds. Policies reach the apiserver's admission a moment after they are stored."""
    deadline = monotonic() + seconds
    while not holds():
        assert monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        sleep(0.1)


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with the chart installed by helm, as in the demo."""
    text = cluster.kubectl("create", "namespace", SYSTEM_NAMESPACE, "--dry-run=client", "-o", "yaml").stdout
    cluster.kubectl("apply", "-f", "-", stdin=text)
    cluster.helm(*helm_words())
    return cluster


@pytest.fixture(scope="session")
def admin(installed: Cluster) -> Iterator[Caller]:
    """The administrator, in a namespace that lives as long as the tests."""
    caller = Caller(installed.kubeconfig)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    # On a cluster that was used before, the namespace of the last run may still be on its way out.
    wait_until(
        lambda: caller.create("/api/v1/namespaces", namespace, dry_run=None).allowed, f"namespace {NAMESPACE}", 60
    )
    yield caller
    caller.delete(f"/api/v1/namespaces/{NAMESPACE}", dry_run=None)
    caller.close()


@pytest.fixture(scope="session")
def make_caller(installed: Cluster, admin: Caller) -> Iterator[Callable[..., Caller]]:
    """A caller with a token of a service account, bound to a pod if one is named."""
    callers = []

    def make(namespace: str, account: str, pod: Mapping[str, Any] | None = None) -> Caller:
        spec: JsonObject = {"expirationSeconds": 3600}
        if pod is not None:
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = admin.create(path, request, dry_run=None)
        assert answer.allowed, answer.message
        callers.append(Caller(installed.kubeconfig, answer.body["status"]["token"]))
        return callers[-1]

    yield make
    for caller in callers:
        caller.close()
