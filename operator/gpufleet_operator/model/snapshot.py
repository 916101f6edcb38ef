"""The input of one decision: the cluster as cached, the time, and the state of earlier passes.

`decide(snapshot)` reads nothing else, so a pass can be replayed and tested without a cluster, a clock or a mock.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gpufleet_api.demand.gpu_demand import DemandStatus
from gpufleet_api.names import Transport
from gpufleet_operator.model.claims.resource_claim import PodKey, ResourceClaim
from gpufleet_operator.model.cluster.telemetry_outage import TelemetryOutage
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_operator.model.node_leases import NodeLeases
from gpufleet_operator.model.objects import (
    BoundPod,
    Node,
    Pod,
    PodDeletion,
    ResourceQuota,
    Service,
    Telemetry,
    Workload,
)
from gpufleet_operator.model.state_types import Limits, PassState, TemplateCheck
from gpufleet_operator.placement.packing import PRIOR, Mix

UNLIMITED = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the cluster at `now`, by the apiserver's clock."""

    now: datetime
    name_seed: str
    """Randomness of this pass, for pod names."""
    templates: Mapping[str, TemplateCheck]
    """The check of each workload that parses, by uid; workloads that are being deleted are included."""
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    """By uid."""
    telemetry: Mapping[str, Telemetry] = field(default_factory=dict)
    """By node name."""
    pods: Mapping[str, Pod] = field(default_factory=dict)
    """Pods with the workload label, by uid."""
    deleted_pods: Mapping[str, PodDeletion] = field(default_factory=dict)
    """Uids of pods whose deletion this process observed."""
    nodes: Mapping[str, Node] = field(default_factory=dict)
    """By name."""
    services: Mapping[str, Service] = field(default_factory=dict)
    """Services with the workload label, by uid."""
    claims: Mapping[PodKey, Mapping[str, ResourceClaim]] = field(default_factory=dict)
    """ResourceClaims with the workload label: key of the pod that owns them -> name -> claim."""
    with_quota: AbstractSet[PodKey] = frozenset()
    """Pods for which Kueue reserves quota, so that they may reserve devices before it admits them."""
    quotas: Mapping[str, ResourceQuota] = field(default_factory=dict)
    """By uid."""
    nodes_with: Mapping[Transport, AbstractSet[str]] = field(default_factory=dict)
    """Transport -> names of the nodes that have devices and whose agent reports it."""
    other_requests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Per node: the summed requests of all other active pods, and their number under `pods`."""
    node_leases: NodeLeases = field(default_factory=NodeLeases)
    """Of the kubelets."""
    other_pods: Mapping[str, BoundPod] = field(default_factory=dict)
    """The pods of `other_requests`, by uid."""
    previous_state: PassState = field(default_factory=PassState)
    """The state after the previous pass."""
    limits: Limits = field(default_factory=Limits)
    demands: Mapping[TemplateKey, DemandStatus | None] = field(default_factory=dict)
    """GPUDemands of templates."""
    mix: Mix = PRIOR
    """What workloads usually request; strategy Pack keeps the fleet usable for it."""
    status_budget: int = UNLIMITED
    """Maximum number of statuses that the pass writes."""
    status_room: Mapping[str, int] = field(default_factory=dict)
    """Namespace -> how many statuses can be sent there, of those in which earlier ones have no response yet."""
    outage: TelemetryOutage | None = None
    """No telemetry arrives from any node."""
    part: frozenset[str] | None = None
    """Names of the nodes that a pass looks at; None: all. Then iterating over the maps yields only what belongs to the
    part, while a lookup by key finds every object. `nodes` always yields all."""

    def node_names(self) -> Iterator[str]:
        """Yields the names of all nodes that the pass looks at, with telemetry or without."""
        if self.part is not None:
            yield from sorted(name for name in self.part if name in self.telemetry or name in self.nodes)
            return
        yield from self.telemetry
        yield from (name for name in self.nodes if name not in self.telemetry)

    def age(self, telemetry: Telemetry) -> timedelta | None:
        """Returns the time since the agent last wrote or confirmed the status; None: it never wrote."""
        return None if telemetry.confirmed_at is None else max(timedelta(0), self.now - telemetry.confirmed_at)

    def claim_of(self, pod: Pod) -> ResourceClaim | None:
        """Returns the claim with the devices of a pod."""
        return None if pod.device_claim is None else self.claims.get((pod.namespace, pod.uid), {}).get(pod.claim_name)

    def stale_reason(self, name: str) -> str | None:
        """Returns why a node's telemetry may not be used, as a message; None: it may."""
        telemetry = self.telemetry.get(name)
        if telemetry is None or telemetry.deleting:
            return "node has no GPUTelemetry"
        if telemetry.decode_error:
            return telemetry.decode_error
        age = self.age(telemetry)
        if telemetry.status is None or age is None:
            return "agent has not published telemetry yet"
        if age > self.limits.stale_after:
            limit = self.limits.stale_after.total_seconds()
            return f"telemetry is older than {limit:.0f} s (last confirmed {_format(telemetry.confirmed_at)})"
        return None

    def is_stale_by_itself(self, name: str) -> bool:
        """Returns whether this node's telemetry is stale, other than in an outage of all telemetry."""
        suppressed = self.outage is not None and self.outage.suppresses_staleness(self.now)
        return self.stale_reason(name) is not None and not suppressed


def _format(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "never"
