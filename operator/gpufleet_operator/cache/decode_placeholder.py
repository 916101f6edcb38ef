"""Decodes placeholder pods."""

from gpufleet_operator.model.lenient_json import Json, as_map, maps, text
from gpufleet_operator.model.scale_up.objects import PLACEHOLDER_LABEL, Placeholder


def placeholder(body: Json) -> Placeholder:
    """Decodes a pod with the label of placeholders.

    Raises:
        KeyError: `metadata` has no identity.
    """
    meta, status = body["metadata"], as_map(body.get("status"))
    conditions = (c for c in maps(status.get("conditions")) if c.get("type") == "PodScheduled")
    reported = any(c.get("status") == "False" and c.get("reason") == "Unschedulable" for c in conditions)
    return Placeholder(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        workload_uid=text(as_map(meta.get("labels")).get(PLACEHOLDER_LABEL)),
        reported=reported,
        deleting="deletionTimestamp" in meta,
    )
