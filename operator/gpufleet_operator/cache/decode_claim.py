"""Decodes ResourceClaims of workloads. Malformed fields are ignored, as in `decode_pod`."""

from gpufleet_api.names import POD_CLAIM
from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_operator.model.claims.resource_claim import ClaimReference, ClaimRequest, DeviceAllocation, ResourceClaim
from gpufleet_operator.model.lenient_json import Json, as_map, maps, number, text
from gpufleet_operator.pods.quantities import whole


def resource_claim(body: Json) -> ResourceClaim:
    """Decodes a v1.ResourceClaim.

    Raises:
        KeyError: `metadata` has no identity.
    """
    meta, devices = body["metadata"], as_map(as_map(body.get("spec")).get("devices"))
    return ResourceClaim(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        pod_uid=_pod_uid(meta),
        deleting="deletionTimestamp" in meta,
        requests=tuple(map(_request, maps(devices.get("requests")))),
        allocated=_allocated(as_map(body.get("status"))),
    )


def claim_reference(spec: Json) -> ClaimReference | None:
    """Returns how a v1.PodSpec refers to the claim with its devices; None: it does not."""
    entry = next((e for e in maps(spec.get("resourceClaims")) if e.get("name") == POD_CLAIM), None)
    if entry is None:
        return None
    sidecars = (c for c in maps(spec.get("initContainers")) if c.get("restartPolicy") == "Always")
    using = (text(c.get("name")) for c in (*sidecars, *maps(spec.get("containers"))) if _uses_claim(c))
    return ClaimReference(
        text(entry.get("resourceClaimName")), tuple(using), text(entry.get("resourceClaimTemplateName"))
    )


def _uses_claim(container: Json) -> bool:
    used = maps(as_map(container.get("resources")).get("claims"))
    return any(one.get("name") == POD_CLAIM for one in used)


def _pod_uid(meta: Json) -> str:
    owners = (r for r in maps(meta.get("ownerReferences")) if r.get("controller") and r.get("kind") == "Pod")
    return next((text(reference.get("uid")) for reference in owners), "")


def _request(entry: Json) -> ClaimRequest:
    exactly = as_map(entry.get("exactly"))
    selectors = (text(as_map(one.get("cel")).get("expression")) for one in maps(exactly.get("selectors")))
    memory = as_map(as_map(exactly.get("capacity")).get("requests")).get("memory")
    return ClaimRequest(
        text(entry.get("name")),
        " && ".join(selectors),
        number(exactly.get("count")) or 1,
        None if memory is None else whole(memory, malformed=0) // BYTES_PER_MIB,
    )


def _allocated(status: Json) -> tuple[DeviceAllocation, ...] | None:
    allocation = status.get("allocation")
    if allocation is None:
        return None
    results = maps(as_map(as_map(allocation).get("devices")).get("results"))
    return tuple(
        DeviceAllocation(text(one.get("driver")), text(one.get("pool")), text(one.get("device"))) for one in results
    )
