"""Decodes GPUDemands."""

from gpufleet_api.demand.gpu_demand import GPUDemand
from gpufleet_operator.model.demands.gpu_demand import Demand, OwnerReference
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_operator.model.lenient_json import Json, maps, text


def demand(body: Json) -> Demand:
    """Decodes a GPUDemand.

    Raises:
        KeyError: `metadata` has no identity.
        ValueError: A field is invalid.
    """
    meta, model = body["metadata"], GPUDemand.model_validate(body)
    spec = model.spec
    return Demand(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        key=TemplateKey(meta["namespace"], spec.owner.kind, spec.owner.name, spec.container, spec.image),
        status=model.status,
        owners=tuple(
            OwnerReference(
                text(one.get("apiVersion")), text(one.get("kind")), text(one.get("name")), text(one.get("uid"))
            )
            for one in maps(meta.get("ownerReferences"))
        ),
        deleting="deletionTimestamp" in meta,
    )
