"""Reads ResourceSlices: the UUIDs of all drivers' devices, and the versions of the agent's own slice."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpufleet_agent.kube.model import ObjectFormatError

ClaimableDevice = tuple[str, str, str]
"""Driver, pool and name of a device, as a claim's allocation names it."""

_UUID_ATTRIBUTES = frozenset({"uuid", "parentUUID"})
"""Without their domain. A claim of a MIG partition holds a part of the GPU that is its parent."""


@dataclass(frozen=True, slots=True)
class PublishedSlice:
    """One version of a ResourceSlice in the cluster."""

    uid: str
    generation: int
    """Rises with each change of the spec."""
    resource_version: int
    pool_generation: int


def parse_published(document: Mapping[str, Any]) -> PublishedSlice:
    """Decodes the versions of a slice.

    Raises:
        ObjectFormatError: A required field is missing or is of another type.
    """
    try:
        metadata = document["metadata"]
        return PublishedSlice(
            uid=str(metadata["uid"]),
            generation=int(metadata["generation"]),
            resource_version=int(metadata["resourceVersion"]),
            pool_generation=int(document["spec"]["pool"]["generation"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ObjectFormatError(f"ResourceSlice: {type(error).__name__}: {error}") from error


def parse_slices(slices: Iterable[Any]) -> dict[ClaimableDevice, frozenset[str]]:
    """Returns the UUIDs of each device that has any; malformed entries are left out.

    Args:
        slices: ResourceSlices of resource.k8s.io/v1.
    """
    found: dict[ClaimableDevice, frozenset[str]] = {}
    for each in slices:
        spec = _map(_map(each).get("spec"))
        driver, pool = spec.get("driver"), _map(spec.get("pool")).get("name")
        for device in spec.get("devices") or ():
            uuids = frozenset(_uuids(_map(_map(device).get("attributes"))))
            if uuids:
                found[str(driver), str(pool), str(_map(device).get("name"))] = uuids
    return found


def _uuids(attributes: Mapping[str, Any]) -> Iterator[str]:
    for name, value in attributes.items():
        text = _map(value).get("string")
        if name.rpartition("/")[2] in _UUID_ATTRIBUTES and isinstance(text, str) and text:
            yield text


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
