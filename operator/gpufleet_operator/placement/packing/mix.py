"""The mix of expected requests that strategy Pack keeps the fleet usable for.

It is given (`Mix.of`) or estimated from observed workloads (`MixEstimator`). The order of requests is unknown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI, share_milli
from gpufleet_operator.placement.model import Request


@dataclass(frozen=True, slots=True, order=True)
class PodType:
    """A class of equal requests: the resources of one pod."""

    cpu_milli: int
    memory_bytes: int
    devices: int
    """0: a pod without devices."""
    milli: int = DEVICE_MILLI
    """Thousandths of each device."""
    models: frozenset[str] = field(default=frozenset(), compare=True)
    """Accepted models; empty: all."""

    @classmethod
    def of(cls, request: Request, device_memory_mib: int) -> "PodType":
        """Returns the type of a request; a share is measured on a device of `device_memory_mib`."""
        needs = request.devices
        part = (
            DEVICE_MILLI
            if needs.share is None
            else min(DEVICE_MILLI, max(1, share_milli(needs.share, device_memory_mib)))
        )
        return cls(request.pod.cpu_milli, request.pod.memory_bytes, needs.count, part, needs.models)


@dataclass(frozen=True, slots=True)
class Mix:
    """Pod types and their relative frequencies, which sum to 1."""

    types: tuple[PodType, ...]
    parts: tuple[float, ...]

    @classmethod
    def of(cls, weights: Mapping[PodType, float]) -> "Mix":
        """Builds a mix from counts or weights. Raises InvalidRequestError if none is above 0."""
        total = sum(weights.values())
        if not total > 0 or any(weight < 0 for weight in weights.values()):
            raise InvalidRequestError(f"the weights of a mix must be 0 or more and not all 0, their sum is {total}")
        kept = sorted((t for t in weights if weights[t] / total > 0), key=_order)
        return cls(tuple(kept), tuple(weights[t] / total for t in kept))

    @classmethod
    def of_types(cls, types: Iterable[PodType]) -> "Mix":
        """Builds a mix that counts each occurrence of a type."""
        counts: dict[PodType, float] = {}
        for pod_type in types:
            counts[pod_type] = counts.get(pod_type, 0) + 1
        return cls.of(counts)


def _order(pod_type: PodType) -> tuple[object, ...]:
    """Sort key by size: adjacent types are similar, which stratified sampling relies on."""
    return (
        pod_type.devices,
        pod_type.milli,
        pod_type.cpu_milli,
        pod_type.memory_bytes,
        sorted(pod_type.models),
    )


PRIOR = Mix.of(
    {
        PodType(0, 0, 1): 60,
        PodType(0, 0, 1, 500): 12,
        PodType(0, 0, 1, 250): 12,
        PodType(0, 0, 2): 6,
        PodType(0, 0, 4): 5,
        PodType(0, 0, 8): 5,
    }
)
"""The mix before any observation: mostly single devices, some shares and whole nodes; CPU and memory unknown."""


class MixEstimator:
    """Estimates the mix from observed workloads with exponential decay.

    The mix changes only after enough observations, because all results computed from a mix are recomputed with
    the next one.
    """

    def __init__(self, prior: Mix = PRIOR, *, prior_pods: float = 4, half_life_pods: float = 4096) -> None:
        self._weights = {t: p * prior_pods for t, p in zip(prior.types, prior.parts, strict=True)}
        self._decay = 0.5 ** (1 / half_life_pods)
        self._max_pods_at_once = 64 * half_life_pods
        self._scale = 1.0
        """Weight of a pod observed now: increasing new weights is cheaper than decaying all of them."""
        self._mix = prior
        self._new = 0.0

    @property
    def mix(self) -> Mix:
        return self._mix

    def observe(self, pod_type: PodType, pods: int = 1) -> None:
        """Records `pods` requested pods of this type."""
        grown = self._scale / self._decay ** min(pods, self._max_pods_at_once)
        weight = (grown - self._scale) / (1 - self._decay)  # each counts more than the one before it
        self._scale = grown
        self._weights[pod_type] = self._weights.get(pod_type, 0.0) + weight
        self._new += weight
        if self._new >= _RENEW * sum(self._weights.values()):
            self._renew()

    def _renew(self) -> None:
        kept = sorted(self._weights, key=lambda t: (-self._weights[t], _order(t)))[:_MAX_TYPES]
        self._weights = {t: self._weights[t] / self._scale for t in kept}
        self._scale, self._new = 1.0, 0.0
        self._mix = Mix.of(self._weights)


_RENEW = 0.25
"""Fraction of the weights that must be new before the mix is updated."""

_MAX_TYPES = 512
