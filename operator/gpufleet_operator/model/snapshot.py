"""Everything that one decision is made from: the cluster as the caches know it, the time, and our own memory.

`decide(snapshot)` reads nothing else, so a pass can be replayed and tested without cluster, clock or mock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gpufleet_operator.model.objects import Node, Pod, PodDeletion, Telemetry, Workload
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_operator.placement.packing import PRIOR, Mix


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the cluster at `now` (the apiserver's clock)."""

    now: datetime
    name_seed: str
    """Randomness of this pass, for pod names."""
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    """By uid."""
    telemetry: Mapping[str, Telemetry] = field(default_factory=dict)
    """By node name."""
    pods: Mapping[str, Pod] = field(default_factory=dict)
    """Pods that carry our workload label, by uid."""
    deleted_pods: Mapping[str, PodDeletion] = field(default_factory=dict)
    """Uids of pods that this process saw go, and how they went."""
    nodes: Mapping[str, Node] = field(default_factory=dict)
    """By name."""
    foreign_requests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Per node: the sum of the requests of pods without a workload, and their number under `pods`."""
    memory: PassState = field(default_factory=PassState)
    limits: Limits = field(default_factory=Limits)
    mix: Mix = PRIOR
    """What workloads usually ask for: strategy Pack keeps the fleet usable for that."""

    def age(self, telemetry: Telemetry) -> timedelta | None:
        """How long ago the apiserver took the agent's last status write; None: it never wrote."""
        return None if telemetry.written_at is None else max(timedelta(0), self.now - telemetry.written_at)

    def stale_reason(self, name: str) -> str | None:
        """Why a node's telemetry may not be used, in words with numbers; None: it may."""
        telemetry = self.telemetry.get(name)
        if telemetry is None or telemetry.deleting:
            return "the node has no GPUTelemetry"
        if telemetry.unreadable:
            return telemetry.unreadable
        age = self.age(telemetry)
        if telemetry.status is None or age is None:
            return "the agent has published no telemetry yet"
        if age > self.limits.stale_after:
            limit = self.limits.stale_after.total_seconds()
            return f"telemetry is older than {limit:.0f} s (last written {_moment(telemetry.written_at)})"
        return None

    def with_memory(self, memory: PassState) -> "Snapshot":
        """The same cluster, remembered differently."""
        return replace(self, memory=memory)


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "never"
