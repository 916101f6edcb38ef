"""The writes that a decision can ask for, and the reads around them, as a Protocol and on the real API."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, Json
from gpufleet_operator.kube.errors import AlreadyExistsError, InvalidWriteError, LostRaceError

_TOLD_AS_TEST = 422
"""Status of a JSON Patch whose `test` failed; the same as that of a body that the schema refuses."""


class Cluster(Protocol):
    """What the executor needs of the apiserver. Objects come back as stored, for the caches."""

    async def create_pod(self, body: Json) -> Json:
        """Make a pod; one of the same name and owner that exists already is returned as it is.

        Raises:
            InvalidWriteError: refused, or the name belongs to somebody else's pod.
            NotFoundError: there is no such namespace, or the pod was deleted in this moment.
        """

    async def patch_pod(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        """JSON Patch.

        Raises:
            LostRaceError: a test failed.
        """

    async def delete_pod(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        """Delete with the pod's own grace period, if it is still this one in this state.

        Raises:
            ConflictError: it isn't.
        """

    async def patch_telemetry(self, node: str, patch: Sequence[Json]) -> Json:
        """JSON Patch. Raises as `patch_pod` does."""

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        """JSON Patch of the status subresource. Raises as `patch_pod` does."""

    async def create_event(self, namespace: str, body: Json) -> None:
        """Make a v1.Event."""

    async def patch_event(self, namespace: str, name: str, patch: Sequence[Json]) -> None:
        """JSON Patch of a v1.Event."""


class ApiCluster:
    """`Cluster` on the real API."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create_pod(self, body: Json) -> Json:
        """See `Cluster.create_pod`."""
        meta = body["metadata"]
        try:
            # Strict: a misspelt field of a template is told to its author and not left out in silence.
            return await self._api.create(paths.pods(meta["namespace"]), body, strict=True)
        except AlreadyExistsError as error:
            # Our own creation, carried out although its answer got lost.
            found = await self._api.get(paths.pod(meta["namespace"], meta["name"]))
            if found["metadata"].get("ownerReferences", [{}])[0].get("uid") == meta["ownerReferences"][0]["uid"]:
                return found
            raise InvalidWriteError(f"pod {meta['name']} exists and belongs to somebody else", error.code) from error

    async def patch_pod(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        """See `Cluster.patch_pod`."""
        return await self._guarded(paths.pod(namespace, name), "", patch)

    async def delete_pod(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        """See `Cluster.delete_pod`."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        await self._api.delete(paths.pod(namespace, name), {"preconditions": preconditions})

    async def patch_telemetry(self, node: str, patch: Sequence[Json]) -> Json:
        """See `Cluster.patch_telemetry`."""
        return await self._guarded(paths.telemetry(node), "", patch)

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Json]) -> Json:
        """See `Cluster.patch_workload_status`."""
        return await self._guarded(paths.workload(namespace, name), "/status", patch)

    async def create_event(self, namespace: str, body: Json) -> None:
        """See `Cluster.create_event`."""
        await self._api.create(paths.events(namespace), body)

    async def patch_event(self, namespace: str, name: str, patch: Sequence[Json]) -> None:
        """See `Cluster.patch_event`."""
        await self._api.json_patch(f"{paths.events(namespace)}/{name}", patch)

    async def _guarded(self, path: str, subresource: str, patch: Sequence[Json]) -> Json:
        """A failed test and an invalid body are both 422: only another look tells them apart."""
        try:
            return await self._api.json_patch(path + subresource, patch)
        except InvalidWriteError as error:
            if error.code != _TOLD_AS_TEST:
                raise
            current = await self._api.get(path)
            if all(_holds(current, op) for op in patch if op["op"] == "test"):
                raise
            raise LostRaceError(str(error), current) from error


def _holds(document: Json, test: Mapping[str, Any]) -> bool:
    """Whether a JSON Patch `test` passes."""
    found: Any = document
    for step in test["path"].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            found = found[int(key)] if int(key) < len(found) else None
        else:
            found = found.get(key) if isinstance(found, Mapping) else None
    return bool(found == test["value"])
