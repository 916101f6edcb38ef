"""What is likely to be asked for: the mix of requests that Pack keeps the fleet usable for.

Known beforehand (`Mix.of`), or learned from the workloads seen (`MixEstimator`). Nothing is known of their order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI, share_milli
from gpufleet_operator.placement.model import Request


@dataclass(frozen=True, slots=True, order=True)
class PodType:
    """Requests that are alike: what one pod takes."""

    cpu_milli: int
    memory_bytes: int
    devices: int
    """0: a pod without devices."""
    milli: int = DEVICE_MILLI
    """Thousandths of each device."""
    models: frozenset[str] = field(default=frozenset(), compare=True)
    """Models that will do; empty: all."""

    @classmethod
    def of(cls, request: Request, device_memory_mib: int) -> "PodType":
        """The type of a request, whose share of a device is measured on one of `device_memory_mib`."""
        needs = request.devices
        part = (
            DEVICE_MILLI
            if needs.share is None
            else min(DEVICE_MILLI, max(1, share_milli(needs.share, device_memory_mib)))
        )
        return cls(request.pod.cpu_milli, request.pod.memory_bytes, needs.count, part, needs.models)


@dataclass(frozen=True, slots=True)
class Mix:
    """Types and how often each is asked for, as parts of 1, in the order of the types."""

    types: tuple[PodType, ...]
    parts: tuple[float, ...]

    @classmethod
    def of(cls, weights: Mapping[PodType, float]) -> "Mix":
        """From counts or weights; raises InvalidRequestError when none is above 0."""
        total = sum(weights.values())
        if not total > 0 or any(weight < 0 for weight in weights.values()):
            raise InvalidRequestError(f"the weights of a mix must be 0 or more and not all 0, their sum is {total}")
        kept = sorted((t for t in weights if weights[t] / total > 0), key=_order)
        return cls(tuple(kept), tuple(weights[t] / total for t in kept))

    @classmethod
    def of_types(cls, types: Iterable[PodType]) -> "Mix":
        """Each type as often as it stands there."""
        counts: dict[PodType, float] = {}
        for kind in types:
            counts[kind] = counts.get(kind, 0) + 1
        return cls.of(counts)


def _order(kind: PodType) -> tuple[object, ...]:
    """By size: neighbours in this order are alike, which the streams make use of."""
    return kind.devices, kind.milli, kind.cpu_milli, kind.memory_bytes, sorted(kind.models)


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
"""Where nothing is known: mostly single devices, some shares, some whole nodes; no guess at CPU and memory."""


class MixEstimator:
    """Learns the mix from the workloads seen; older ones count less.

    A mix is kept until enough has been seen to change it, because everything that is computed from a mix is
    computed anew with the next one.
    """

    def __init__(self, prior: Mix = PRIOR, *, prior_pods: float = 4, half_life_pods: float = 4096) -> None:
        self._weights = {t: p * prior_pods for t, p in zip(prior.types, prior.parts, strict=True)}
        self._fading = 0.5 ** (1 / half_life_pods)
        self._most_at_once = 64 * half_life_pods
        self._scale = 1.0
        """A pod seen now counts this much: growing newcomers is cheaper than shrinking everything."""
        self._mix = prior
        self._new = 0.0

    @property
    def mix(self) -> Mix:
        """What is known so far."""
        return self._mix

    def observe(self, kind: PodType, pods: int = 1) -> None:
        """Note that `pods` pods of this type were asked for."""
        grown = self._scale / self._fading ** min(pods, self._most_at_once)
        weight = (grown - self._scale) / (1 - self._fading)  # each counts more than the one before it
        self._scale = grown
        self._weights[kind] = self._weights.get(kind, 0.0) + weight
        self._new += weight
        if self._new >= _RENEW * sum(self._weights.values()):
            self._renew()

    def _renew(self) -> None:
        kept = sorted(self._weights, key=lambda t: (-self._weights[t], _order(t)))[:_MOST_TYPES]
        self._weights = {t: self._weights[t] / self._scale for t in kept}
        self._scale, self._new = 1.0, 0.0
        self._mix = Mix.of(self._weights)


_RENEW = 0.25
"""Part of the census that is new when the mix is renewed."""

_MOST_TYPES = 512
