"""GPUDemands, reduced to the fields that decisions need."""

from dataclasses import dataclass

from gpufleet_api.demand.gpu_demand import DemandStatus
from gpufleet_operator.model.demands.template import TemplateKey


@dataclass(frozen=True, slots=True)
class OwnerReference:
    """An owner: the GPUDemand is deleted with the last one."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Demand:
    """A GPUDemand."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    key: TemplateKey
    status: DemandStatus | None = None
    owners: tuple[OwnerReference, ...] = ()
    deleting: bool = False
