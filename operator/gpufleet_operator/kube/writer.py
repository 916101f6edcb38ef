"""The writes that a decision can require, as a Protocol and on the API."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.errors import (
    AlreadyExistsError,
    InvalidWriteError,
    NotFoundError,
    PatchConflictError,
    UnavailableError,
)
from gpufleet_operator.model.lenient_json import Json

_UNPROCESSABLE = 422
"""Status of a JSON Patch whose `test` failed, of an object that violates the schema, and of one with another uid."""


_TOO_MANY_REQUESTS = 429
"""Status of an eviction that a PodDisruptionBudget does not allow now."""


class KubeWriter(Protocol):
    """The writes of the executor. Each returns the object as stored, for the cache."""

    async def create_pod(self, body: Json) -> Json:
        """Creates a pod, or returns the existing one of this name and owner.

        Raises:
            InvalidWriteError: The pod was rejected, or one with this name has another owner.
            NotFoundError: The namespace does not exist, or the existing pod was deleted meanwhile.
        """

    async def dry_run_pod(self, body: Json) -> Json:
        """Returns the pod as it would be stored.

        Raises:
            InvalidWriteError: The pod would be rejected.
            NotFoundError: The namespace does not exist.
        """

    async def list_quotas(self, namespace: str) -> Sequence[Json]:
        """Returns the ResourceQuotas of a namespace."""

    async def create_service(self, body: Json) -> Json:
        """Creates a Service, or returns the existing one of this name and owner.

        Raises:
            InvalidWriteError: The Service was rejected, or one with this name has another owner.
            NotFoundError: The namespace does not exist, or the existing Service was deleted meanwhile.
        """

    async def apply_service(self, body: Json) -> Json:
        """Applies the operator's fields of a Service.

        Raises:
            NotFoundError: There is no Service with this name and uid.
            InvalidWriteError: The Service was rejected.
        """

    async def create_claim(self, body: Json) -> Json:
        """Creates a ResourceClaim, or returns the existing one of this name and owner.

        Raises:
            InvalidWriteError: The claim was rejected, or one with this name has another owner.
            NotFoundError: The namespace does not exist, or the existing claim was deleted meanwhile.
        """

    async def delete_claim(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        """Deletes a ResourceClaim.

        Raises:
            ConflictError: The claim has another uid or resource version.
        """

    async def patch_pod(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        """Applies a JSON Patch.

        Raises:
            PatchConflictError: A test of the patch failed.
        """

    async def delete_pod(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        """Deletes a pod with its own grace period.

        Raises:
            ConflictError: The pod has another uid or version.
        """

    async def evict_pod(self, namespace: str, name: str, uid: str) -> None:
        """Evicts a pod with its own grace period.

        Raises:
            InvalidWriteError: A PodDisruptionBudget does not allow it now.
            ConflictError: The pod has another uid.
        """

    async def patch_telemetry(self, node: str, patch: Sequence[Json]) -> Json:
        """Applies a JSON Patch.

        Raises:
            PatchConflictError: A test of the patch failed.
        """

    async def apply_telemetry_status(self, node: str, body: Json) -> Json:
        """Applies the operator's fields of a GPUTelemetry's status.

        Raises:
            NotFoundError: There is no GPUTelemetry with this name and uid.
        """

    async def patch_node_status(self, name: str, body: Json) -> Json:
        """Applies a strategic merge patch to the status of a Node.

        Raises:
            NotFoundError: There is no Node with this name and uid.
        """

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        """Applies a JSON Patch to the status subresource.

        Raises:
            PatchConflictError: A test of the patch failed.
        """

    async def delete_workload(self, namespace: str, name: str, uid: str) -> None:
        """Deletes a GPUWorkload, and then its pods in the background.

        Raises:
            ConflictError: The workload has another uid.
        """

    async def create_event(self, namespace: str, body: Json) -> None:
        """Creates a v1.Event."""

    async def patch_event(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        """Applies a JSON Patch to a v1.Event."""


class ApiWriter:
    """`KubeWriter` on the API."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create_pod(self, body: Json) -> Json:
        return await self._create(paths.pods(body["metadata"]["namespace"]), body)

    async def create_service(self, body: Json) -> Json:
        return await self._create(paths.services(body["metadata"]["namespace"]), body)

    async def apply_service(self, body: Json) -> Json:
        path = f"{paths.services(body['metadata']['namespace'])}/{body['metadata']['name']}"
        return await self._same_object(path, body, self._api.apply(path, body))

    async def create_claim(self, body: Json) -> Json:
        return await self._create(paths.claims(body["metadata"]["namespace"]), body)

    async def delete_claim(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        await self._api.delete(f"{paths.claims(namespace)}/{name}", {"preconditions": preconditions})

    async def dry_run_pod(self, body: Json) -> Json:
        return await self._api.create(paths.pods(body["metadata"]["namespace"]), body, strict=True, dry_run=True)

    async def list_quotas(self, namespace: str) -> Sequence[Json]:
        found: Sequence[Json] = (await self._api.get(paths.quotas(namespace))).get("items") or ()
        return found

    async def patch_pod(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        return await self._patch(paths.pod(namespace, name), "", patch)

    async def delete_pod(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        await self._api.delete(paths.pod(namespace, name), {"preconditions": preconditions})

    async def evict_pod(self, namespace: str, name: str, uid: str) -> None:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": namespace, "name": name},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        try:
            await self._api.create(f"{paths.pod(namespace, name)}/eviction", body)
        except UnavailableError as error:
            if error.code != _TOO_MANY_REQUESTS:
                raise
            raise InvalidWriteError(str(error), error.code) from error

    async def apply_telemetry_status(self, node: str, body: Json) -> Json:
        path = paths.telemetry(node)
        return await self._same_object(path, body, self._api.apply(f"{path}/status", body))

    async def patch_node_status(self, name: str, body: Json) -> Json:
        path = paths.node(name)
        return await self._same_object(path, body, self._api.merge_patch(f"{path}/status", body))

    async def patch_telemetry(self, node: str, patch: Sequence[Json]) -> Json:
        return await self._patch(paths.telemetry(node), "", patch)

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        return await self._patch(paths.workload(namespace, name), "/status", patch)

    async def delete_workload(self, namespace: str, name: str, uid: str) -> None:
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        await self._api.delete(paths.workload(namespace, name), options)

    async def create_event(self, namespace: str, body: Json) -> None:
        await self._api.create(paths.events(namespace), body)

    async def patch_event(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        return await self._api.json_patch(f"{paths.events(namespace)}/{name}", patch)

    async def _create(self, collection: str, body: Json) -> Json:
        """Creates an object with an owner, or returns the existing one of this owner."""
        try:
            # Strict: a misspelled field of a template is reported to its author instead of being dropped.
            return await self._api.create(collection, body, strict=True)
        except AlreadyExistsError as error:
            # Possibly our own creation, whose response was lost.
            name, owner = body["metadata"]["name"], body["metadata"]["ownerReferences"][0]["uid"]
            found = await self._api.get(f"{collection}/{name}")
            if any(reference.get("uid") == owner for reference in found["metadata"].get("ownerReferences", ())):
                return found
            raise InvalidWriteError(f"{body['kind']} {name} already exists with another owner", error.code) from error

    async def _same_object(self, path: str, body: Json, write: Awaitable[Json]) -> Json:
        """Writes to the object with the uid in `body`. After a 422, reads it to recognize one that was created again.

        To the apiserver the uid of an earlier object is an invalid change of the later one's.
        """
        try:
            return await write
        except InvalidWriteError as error:
            if error.code != _UNPROCESSABLE:
                raise
            current = await self._api.get(path)
            if current["metadata"]["uid"] == body["metadata"]["uid"]:
                raise
            raise NotFoundError(f"{path} has another uid", error.code) from error

    async def _patch(self, path: str, subresource: str, patch: Sequence[Json]) -> Json:
        """Applies a JSON Patch. After a 422, reads the object to distinguish a failed test from an invalid result."""
        try:
            return await self._api.json_patch(path + subresource, patch)
        except InvalidWriteError as error:
            if error.code != _UNPROCESSABLE:
                raise
            current = await self._api.get(path)
            if all(_holds(current, op) for op in patch if op["op"] == "test"):
                raise
            raise PatchConflictError(str(error), current) from error


def _holds(document: Json, test: Mapping[str, Any]) -> bool:
    """Returns whether a JSON Patch `test` passes."""
    found: Any = document
    for step in test["path"].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            found = found[int(key)] if int(key) < len(found) else None
        else:
            found = found.get(key) if isinstance(found, Mapping) else None
    return bool(found == test["value"])
