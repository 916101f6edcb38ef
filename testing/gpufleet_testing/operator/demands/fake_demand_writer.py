"""GPUDemands in memory, behind the writes of the recorder."""

from collections.abc import Mapping
from typing import Any

from gpufleet_operator.demand.plan import WriteDemand
from gpufleet_operator.kube.errors import ApiError, ConflictError, NotFoundError
from gpufleet_operator.kube.patches import as_json
from gpufleet_operator.model.demands.gpu_demand import Demand
from gpufleet_operator.model.lenient_json import Json


class FakeDemandWriter:
    """`DemandWriter` that keeps objects as the apiserver does, with versions. `error` fails each write."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.writes = 0
        self.error: ApiError | None = None
        self._version = 100

    async def apply(self, write: WriteDemand, version: str) -> Json:
        owners = [{"apiVersion": o.api_version, "kind": o.kind, "name": o.name, "uid": o.uid} for o in write.owners]
        return self._store(write, version, {"ownerReferences": owners}, {"spec": as_json(write.key.spec)})

    async def apply_status(self, write: WriteDemand, version: str) -> Json:
        if (write.key.namespace, write.key.name) not in self.objects:
            raise NotFoundError("not found", 404)
        return self._store(write, version, {}, {"status": as_json(write.status)})

    async def delete(self, demand: Demand) -> None:
        self.writes += 1
        if self.objects.pop((demand.namespace, demand.name), None) is None:
            raise NotFoundError("not found", 404)

    def _store(self, write: WriteDemand, version: str, metadata: Json, content: Mapping[str, Any]) -> Json:
        self.writes += 1
        if self.error is not None:
            raise self.error
        key = write.key.namespace, write.key.name
        before: Mapping[str, Any] = self.objects.get(key, {})
        if version != before.get("metadata", {}).get("resourceVersion", ""):
            raise ConflictError("the object has been modified", 409)
        self._version += 1
        identity = {"name": key[1], "namespace": key[0], "uid": f"uid-{key[1]}", "resourceVersion": str(self._version)}
        meta = {**before.get("metadata", {}), **metadata, **identity}
        self.objects[key] = {**before, **content, "metadata": meta}
        return self.objects[key]
