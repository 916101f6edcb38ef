"""The part of a request that node scores depend on: equal requests share their scores."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from gpufleet_api.names import WHOLE_DEVICE_PERCENT
from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.fleet.encode import capability_code
from gpufleet_operator.placement.fleet.validate_sample import COMPUTE_CAPABILITY, MAX_INT32
from gpufleet_operator.placement.model import MAX_RESOURCE_AMOUNT, DeviceNeeds, PodNeeds, Request, ScoreWeights
from gpufleet_operator.placement.search.score import check_weights


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """The needs of one replica. Results are memoized by the identity of this object."""

    devices: DeviceNeeds
    pod: PodNeeds
    weights: ScoreWeights
    topology: Topology
    min_free_mib: int | None = None
    """Free memory needed of each device: the larger of requirement and share."""
    min_capability: int | None = None

    @classmethod
    def of(cls, request: Request) -> "Query":
        """Builds the query of a request. Raises InvalidRequestError for a number out of range."""
        _check_amounts(request)
        needs, share = request.devices, request.devices.share
        free = needs.min_free_memory_mib
        if share is not None and share.memory_mib:
            free = max(free or 0, share.memory_mib)
        least = None if needs.min_compute_capability is None else capability_code(needs.min_compute_capability)
        return cls(needs, request.pod, request.weights, request.topology, free, least)


def query_key(request: Request) -> Hashable:
    """Returns a key that is equal for equal queries."""
    pod = request.pod
    return (
        request.devices,
        request.weights,
        request.topology,
        pod.cpu_milli,
        pod.memory_bytes,
        pod.affinity_terms,
        pod.tolerations,
        frozenset(pod.extended.items()) if pod.extended else None,
        frozenset(pod.node_selector.items()) if pod.node_selector else None,
    )


def check_request(request: Request) -> None:
    """Raises InvalidRequestError with the workload and the value."""
    needs, share = request.devices, request.devices.share
    for what, kind, value in (("strategy", Strategy, request.strategy), ("topology", Topology, request.topology)):
        if not isinstance(value, kind):
            raise InvalidRequestError(f"{request.name}: {what} {value} is not one of {', '.join(kind)}")
    if needs.count < 0:
        raise InvalidRequestError(f"{request.name}: devices.count is {needs.count}, must be 0 or more")
    if len(request.replicas) > 1 and len(set(request.replicas)) != len(request.replicas):
        raise InvalidRequestError(f"{request.name}: duplicate replica in {request.replicas}")
    if both := needs.include_uuids & needs.exclude_uuids:
        raise InvalidRequestError(f"{request.name}: {min(both)} is both included and excluded")
    if share is not None and not (share.memory_mib > 0 or share.compute_percent > 0):
        raise InvalidRequestError(f"{request.name}: a share needs memoryMiB or computePercent above 0, got {share}")
    if share is not None and (share.memory_mib < 0 or not 0 <= share.compute_percent <= WHOLE_DEVICE_PERCENT):
        raise InvalidRequestError(f"{request.name}: memoryMiB must be 0 or more, computePercent 0 to 100, got {share}")
    check_weights(request.weights)


def _check_amounts(request: Request) -> None:
    for what, amount, most in _amounts(request):
        if not 0 <= amount <= most:
            words = "0 or more" if amount < 0 else f"{most} or less"
            raise InvalidRequestError(f"{request.name}: {what} is {amount}, must be {words}")
    least = request.devices.min_compute_capability
    if least is not None and not COMPUTE_CAPABILITY.fullmatch(least):
        raise InvalidRequestError(f"{request.name}: min_compute_capability is {least}, must be such as 9.0")


def _amounts(request: Request) -> Iterator[tuple[str, int, int]]:
    """Yields each requested number with the maximum that the arrays can represent."""
    needs, pod = request.devices, request.pod
    yield "min_free_memory_mib", needs.min_free_memory_mib or 0, MAX_INT32
    yield "memoryMiB of a share", needs.share.memory_mib if needs.share else 0, MAX_INT32
    yield "max_utilization_percent", needs.max_utilization_percent or 0, MAX_INT32
    yield "cpu_milli", pod.cpu_milli, MAX_RESOURCE_AMOUNT
    yield "memory_bytes", pod.memory_bytes, MAX_RESOURCE_AMOUNT
    yield from ((name, amount, MAX_RESOURCE_AMOUNT) for name, amount in pod.extended.items())
