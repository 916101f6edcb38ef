"""Writes GPUDemands: a Protocol, and its implementation on the API."""

from dataclasses import asdict
from typing import Any, Protocol

from gpufleet_api.names import API_VERSION, DEMAND_KIND
from gpufleet_operator.demand.plan import WriteDemand
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.patches import as_json
from gpufleet_operator.model.demands.gpu_demand import Demand, OwnerReference
from gpufleet_operator.model.lenient_json import Json


class DemandWriter(Protocol):
    """Writes of the recorder. Each returns the stored object.

    `version` is the resource version by which the write was decided; empty: the object does not exist.
    """

    async def apply(self, write: WriteDemand, version: str) -> Json:
        """Creates the object, or sets its owners.

        Raises:
            ConflictError: It has another version.
        """

    async def apply_status(self, write: WriteDemand, version: str) -> Json:
        """Replaces the status.

        Raises:
            ConflictError: It has another version.
            NotFoundError: The object does not exist.
        """

    async def delete(self, demand: Demand) -> None:
        """Deletes the object.

        Raises:
            ConflictError: It has another uid or version.
            NotFoundError: It does not exist.
        """


class ApiDemandWriter:
    """`DemandWriter` on the API."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def apply(self, write: WriteDemand, version: str) -> Json:
        owners = {"ownerReferences": [_reference(owner) for owner in write.owners]} if write.owners else {}
        body = _body(write, version, owners, {"spec": as_json(write.key.spec)})
        return await self._api.apply(paths.demand(write.key.namespace, write.key.name), body)

    async def apply_status(self, write: WriteDemand, version: str) -> Json:
        body = _body(write, version, {}, {"status": as_json(write.status)})
        return await self._api.apply(f"{paths.demand(write.key.namespace, write.key.name)}/status", body)

    async def delete(self, demand: Demand) -> None:
        preconditions = {"uid": demand.uid, "resourceVersion": demand.resource_version}
        await self._api.delete(paths.demand(demand.namespace, demand.name), {"preconditions": preconditions})


def _body(write: WriteDemand, version: str, metadata: Json, content: Json) -> dict[str, Any]:
    """Returns the fields to apply. The version detects a change by another client, and a write of a former leader."""
    known = {"resourceVersion": version} if version else {}
    meta = {"name": write.key.name, "namespace": write.key.namespace, **known, **metadata}
    return {"apiVersion": API_VERSION, "kind": DEMAND_KIND, "metadata": meta, **content}


def _reference(owner: OwnerReference) -> dict[str, str]:
    of = asdict(owner)
    return {"apiVersion": of["api_version"], "kind": of["kind"], "name": of["name"], "uid": of["uid"]}
