"""What an object's metadata has of the writes of an agent. Imports no models, so that the command line starts fast."""

from collections.abc import Iterator
from typing import Any

from gpufleet_api.names import AGENT_FIELD_MANAGER, AGENT_LEASE_PREFIX, OBSERVED_AT_ANNOTATION
from gpufleet_operator.model.lenient_json import Json, as_map, maps, text


def write_times(meta: Json, subresource: str | None = None) -> Iterator[Any]:
    """Yields when the apiserver recorded writes of the agent: the one time that a node's clock cannot set.

    Args:
        meta: Metadata of the object. The times are yielded as they are there, and may be malformed.
        subresource: Of the writes; None: writes of the object itself.
    """
    for entry in maps(meta.get("managedFields")):
        mine = entry.get("manager") == AGENT_FIELD_MANAGER and entry.get("subresource") == subresource
        if mine and (moment := entry.get("time")):
            yield moment


def confirmed_report(meta: Json) -> tuple[str, str]:
    """Returns the node of an agent's Lease, and `status.observedAt` of the report that it confirms; empty: none."""
    name, observed_at = text(meta.get("name")), text(as_map(meta.get("annotations")).get(OBSERVED_AT_ANNOTATION))
    return name.removeprefix(AGENT_LEASE_PREFIX) if name.startswith(AGENT_LEASE_PREFIX) else "", observed_at
