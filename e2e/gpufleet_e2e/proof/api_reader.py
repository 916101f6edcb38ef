"""Reads and watches objects as plain JSON with the official client.

Plain JSON and not the client's classes: the comparison is pure, and its tests write objects by hand.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Self, cast

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from gpufleet_e2e.proof import contract
from gpufleet_e2e.proof.claims import ClaimEvidence
from gpufleet_e2e.proof.errors import EvidenceError, WaitTimeoutError

JsonObject = dict[str, Any]


class ApiReader:
    """Read-only access to one apiserver. As a context manager it closes the client's connections."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client: client.ApiClient = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]  # published without types
        self._core = client.CoreV1Api(self._client)
        self._custom = client.CustomObjectsApi(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()  # type: ignore[no-untyped-call]  # published without types

    def kubernetes(self) -> tuple[int, int]:
        """Reads the version of the apiserver, such as (1, 36). Raises EvidenceError when it cannot be read."""
        with _named("version of the apiserver"):
            found = client.VersionApi(self._client).get_code()
        # Providers append a plus sign.
        return int(found.major), int(found.minor.rstrip("+"))

    def workload(self, namespace: str, name: str) -> JsonObject:
        """Reads a GPUWorkload. Raises EvidenceError when it does not exist."""
        key = (contract.GROUP, contract.VERSION, namespace, contract.WORKLOADS, name)
        with _named(f"GPUWorkload {namespace}/{name}"):
            return cast("JsonObject", self._custom.get_namespaced_custom_object(*key))

    def telemetry(self) -> list[JsonObject]:
        """Reads all GPUTelemetry objects. Raises EvidenceError when they cannot be read."""
        key = (contract.GROUP, contract.VERSION, contract.TELEMETRY)
        with _named("GPUTelemetry"):
            return list(cast("JsonObject", self._custom.list_cluster_custom_object(*key))["items"])

    def claim_evidence(self) -> ClaimEvidence:
        """Reads the driver's ResourceSlices and all ResourceClaims. Raises EvidenceError when they cannot be read."""
        with _named("ResourceSlices and ResourceClaims"):
            found = {
                kind: list(cast("JsonObject", self._custom.list_cluster_custom_object(*contract.DRA, kind))["items"])
                for kind in ("resourceslices", "resourceclaims")
            }
        slices = [one for one in found["resourceslices"] if one["spec"]["driver"] == contract.DRIVER]
        return ClaimEvidence(slices, found["resourceclaims"])

    def pods(self, namespace: str, selector: str) -> list[JsonObject]:
        """Reads pods by label selector. Raises EvidenceError when they cannot be read."""
        listing: Callable[..., Any] = self._core.list_namespaced_pod
        with _named(f"pods of {namespace}"):
            response = listing(namespace, label_selector=selector, _preload_content=False)
            return list(json.loads(response.data)["items"])

    def watch_workload(self, namespace: str, name: str, *, timeout_seconds: float) -> Iterator[JsonObject]:
        """Yields the GPUWorkload and each of its changes, until the time is over or it is deleted.

        Raises:
            EvidenceError: The apiserver cannot be read.
        """
        key = (contract.GROUP, contract.VERSION, namespace, contract.WORKLOADS)
        return _watch(self._custom.list_namespaced_custom_object, key, name, timeout_seconds)

    def watch_telemetry(self, node: str, *, timeout_seconds: float) -> Iterator[JsonObject]:
        """Yields the node's GPUTelemetry and each of its changes, until the time is over or it is deleted."""
        key = (contract.GROUP, contract.VERSION, contract.TELEMETRY)
        return _watch(self._custom.list_cluster_custom_object, key, node, timeout_seconds)

    def wait_for_workload(
        self, namespace: str, name: str, done: Callable[[JsonObject], bool], *, timeout_seconds: float
    ) -> JsonObject:
        """Waits until `done` accepts the GPUWorkload. Raises WaitTimeoutError with the last conditions."""
        last: JsonObject = {}
        for last in self.watch_workload(namespace, name, timeout_seconds=timeout_seconds):
            if done(last):
                return last
        said = describe_conditions(last)
        raise WaitTimeoutError(f"GPUWorkload {namespace}/{name} after {timeout_seconds:.0f} s: {said}")

    def wait_for_telemetry(
        self, node: str, done: Callable[[JsonObject], bool], *, timeout_seconds: float
    ) -> JsonObject:
        """Waits until `done` accepts the node's GPUTelemetry. Raises WaitTimeoutError with the last write."""
        last: JsonObject = {}
        for last in self.watch_telemetry(node, timeout_seconds=timeout_seconds):
            if done(last):
                return last
        seen = last.get("status", {}).get("observedAt", "never")
        raise WaitTimeoutError(f"GPUTelemetry {node} after {timeout_seconds:.0f} s: last written {seen}")


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Converts errors of the client to an EvidenceError with the name of the object."""
    try:
        yield
    except ApiException as error:
        raise EvidenceError(f"{what}: {error.status} {error.reason}") from error
    except HTTPError as error:  # no response
        raise EvidenceError(f"{what}: {error}") from error


def describe_conditions(workload: Mapping[str, Any]) -> str:
    """Returns every condition with its reason and message, for errors."""
    conditions = workload.get("status", {}).get("conditions", [])
    words = [f"{one['type']}={one['status']} {one['reason']}: {one.get('message', '')}" for one in conditions]
    return "; ".join(words) or "no condition"


def _watch(listing: Callable[..., Any], key: tuple[str, ...], name: str, seconds: float) -> Iterator[JsonObject]:
    deadline = monotonic() + seconds
    # Without a resourceVersion a stream begins with the current object: nothing is missed between two streams. The
    # server may end one early, as at its restart; then the next one begins.
    while (left := deadline - monotonic()) > 0:
        stream = watch.Watch().stream(  # type: ignore[no-untyped-call]  # published without types
            listing, *key, field_selector=f"metadata.name={name}", timeout_seconds=max(1, int(left))
        )
        with _named(name):
            for event in stream:
                if event["type"] == "DELETED":
                    return
                yield event["object"]
