"""The path from a pod spec to the node selector terms of its required node affinity."""

from gpufleet_operator.model.lenient_json import Json, as_map, maps

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PATH = ("affinity", "nodeAffinity", REQUIRED)
"""Below the pod spec."""


def node_selector_terms(spec: Json) -> tuple[Json, ...] | None:
    """Returns the terms, malformed ones as empty maps; None if no node affinity is required."""
    required = as_map(as_map(spec.get("affinity")).get("nodeAffinity")).get(REQUIRED)
    return None if required is None else tuple(maps(as_map(required).get("nodeSelectorTerms")))
