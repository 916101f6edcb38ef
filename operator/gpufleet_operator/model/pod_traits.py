"""Traits of a pod for rules on nodes and topology domains: labels, host ports, pod affinity, topology spread."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpufleet_operator.placement.node_rules import MatchExpression

ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - hostIP of a port on all addresses of the node; nothing is bound here
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the node that a container uses."""

    port: int
    protocol: str = "TCP"
    address: str = ALL_ADDRESSES

    def conflicts(self, other: "HostPort") -> bool:
        """Returns True if both cannot be bound on one node."""
        same_address = self.address == other.address or ALL_ADDRESSES in (self.address, other.address)
        return same_address and (self.port, self.protocol) == (other.port, other.protocol)

    def __str__(self) -> str:
        return f"{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """As v1.LabelSelector: all expressions must match; without any, everything matches."""

    expressions: tuple[MatchExpression, ...] = ()


@dataclass(frozen=True, slots=True)
class PodTerm:
    """A required term of pod affinity or anti-affinity."""

    topology_key: str
    selector: LabelSelector | None
    """None: matches no pod."""
    namespaces: frozenset[str] | None
    """None: all namespaces."""
    by_namespace_labels: bool = False
    """It also selects namespaces by their labels, which are unknown here."""


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """A topology spread constraint with `whenUnsatisfiable: DoNotSchedule`."""

    topology_key: str
    selector: LabelSelector | None
    max_skew: int = 1
    min_domains: int = 1
    honors_affinity: bool = True
    """False if `nodeAffinityPolicy` is Ignore."""
    honors_taints: bool = False
    """True if `nodeTaintsPolicy` is Honor."""


@dataclass(frozen=True, slots=True)
class PodTraits:
    """Traits of one pod. A pod of another controller has no affinity and no spread here: they concern only itself."""

    namespace: str = ""
    labels: Labels = field(default_factory=dict)
    ports: tuple[HostPort, ...] = ()
    anti_affinity: tuple[PodTerm, ...] = ()
    affinity: tuple[PodTerm, ...] = ()
    spread: tuple[SpreadConstraint, ...] = ()

    @property
    def restricts_domains(self) -> bool:
        """True if the pod has a rule on topology domains."""
        return bool(self.ports or self.anti_affinity or self.affinity or self.spread)
