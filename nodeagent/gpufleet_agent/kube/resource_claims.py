"""The parts of a ResourceClaim that a DRA driver reads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightkube.utils.quantity import parse_quantity

from gpufleet_agent.kube.model import ObjectFormatError
from gpufleet_common.units import BYTES_PER_MIB

MEMORY_CAPACITY = "memory"


@dataclass(frozen=True, slots=True)
class ConsumerPod:
    """A pod for which a claim is reserved."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """One result of a claim's allocation."""

    request: str
    """Request of the claim, without its alternative."""
    device: str
    """Name of the device in the driver's ResourceSlice."""
    share_id: str | None = None
    """Distinguishes allocations of the same device; None: the device is allocated once at most."""
    memory_mib: int | None = None
    """Memory of the device that the claim has; None: all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatedClaim:
    """A claim, and what one driver's pool has allocated to it."""

    namespace: str
    name: str
    uid: str
    pods: tuple[ConsumerPod, ...] = ()
    devices: tuple[AllocatedDevice, ...] = ()
    """Empty: not allocated, or in other pools only."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def pod_uids(self) -> frozenset[str]:
        return frozenset(pod.uid for pod in self.pods)


def parse_claim(document: Mapping[str, Any], driver: str, pool: str) -> AllocatedClaim:
    """Decodes a ResourceClaim of resource.k8s.io/v1.

    Raises:
        ObjectFormatError: A required field is missing or is of another type.
    """
    try:
        metadata, status = document["metadata"], document.get("status") or {}
        allocation = status.get("allocation") or {}
        results = (allocation.get("devices") or {}).get("results") or ()
        return AllocatedClaim(
            namespace=str(metadata["namespace"]),
            name=str(metadata["name"]),
            uid=str(metadata["uid"]),
            pods=tuple(_pods(status)),
            devices=tuple(
                _device(result) for result in results if result["driver"] == driver and result["pool"] == pool
            ),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ObjectFormatError(f"ResourceClaim: {type(error).__name__}: {error}") from error


def _pods(status: Mapping[str, Any]) -> Iterator[ConsumerPod]:
    for consumer in status.get("reservedFor") or ():
        if consumer["resource"] == "pods":
            yield ConsumerPod(str(consumer["name"]), str(consumer["uid"]))


def _device(result: Mapping[str, Any]) -> AllocatedDevice:
    memory = (result.get("consumedCapacity") or {}).get(MEMORY_CAPACITY)
    bytes_ = None if memory is None else parse_quantity(str(memory))
    return AllocatedDevice(
        request=str(result["request"]).partition("/")[0],
        device=str(result["device"]),
        share_id=None if result.get("shareID") is None else str(result["shareID"]),
        memory_mib=None if bytes_ is None else int(bytes_ // BYTES_PER_MIB),
    )
