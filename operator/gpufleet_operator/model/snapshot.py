"""Everything that one decision is made from: the cluster as the caches know it, the time, and our own memory.

`decide(snapshot)` reads nothing else, so a pass can be replayed and tested without cluster, clock or mock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gpufleet_operator.decide.template_check import Verdict
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.model.objects import Departure, Node, Pod, Telemetry, Workload
from gpufleet_operator.placement.packing import PRIOR, Mix


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's settings that decisions depend on."""

    resources: Resources = DEFAULTS
    stale_after: timedelta = timedelta(seconds=90)
    """Telemetry older than this isn't used."""
    unschedulable_grace: timedelta = timedelta(seconds=5)
    """How long kube-scheduler's refusal of a pinned pod must stand before the pod is placed elsewhere."""
    settling_grace: timedelta = timedelta(seconds=30)
    """The same while the agent is stale, or the node's allocatable and the agent's healthy devices differ."""
    holder_delay: timedelta = timedelta(seconds=10)
    """A container that holds nothing in two reports since its start, so long apart, runs without devices."""
    parting_delay: timedelta = timedelta(seconds=5)
    """How long a container may live on after the report that no longer shows its pod, which was deleted by force.

    Kubelets take about two seconds. Also how long an agent may take to tell that a pod, which is over, holds nothing.
    """
    degraded_grace: timedelta = timedelta(seconds=10)
    """How long a device must be Unhealthy before its pod is replaced, where that is wanted."""
    message_interval: timedelta = timedelta(seconds=10)
    """Status isn't written more often than this when only numbers in its messages changed."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Something that failed, how often in a row, and when it may be tried again."""

    count: int
    at: datetime
    until: datetime
    message: str = ""
    by: str = ""
    """Who refused: `kube-scheduler`, `kubelet`, `gpufleet`, `apiserver`."""

    @classmethod
    def after(
        cls, before: "Backoff | None", now: datetime, *, base: float, cap: float, message: str, by: str
    ) -> "Backoff":
        """The next one in a row: `base` seconds, doubled each time, at most `cap`."""
        count = before.count + 1 if before else 1
        delay = min(cap, base * 2 ** min(count - 1, 30))
        return cls(count, now, now + timedelta(seconds=delay), message[:1024], by)


RefusalKey = tuple[str, int, str]
"""Workload uid, replica, node."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is carried from pass to pass. Losing all of it (a restart) costs time, never correctness."""

    refusals: Mapping[RefusalKey, Backoff] = field(default_factory=dict)
    """Nodes set aside for one replica."""
    setbacks: Mapping[str, Backoff] = field(default_factory=dict)
    """Failed writes, by the action's key."""
    refused: frozenset[str] = frozenset()
    """Uids of pods whose refusal is counted in `refusals` already."""
    creating: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Workload uid, replica -> name of a pod whose creation was tried and not answered: tried again by that name."""
    refused_since: Mapping[str, datetime] = field(default_factory=dict)
    """Pod uid -> since when kube-scheduler's refusal stands, by our clock."""
    covered_from: Mapping[str, int] = field(default_factory=dict)
    """Pod uid -> the telemetry generation in which we first saw its reservation."""
    held: frozenset[str] = frozenset()
    """Uids of reserved pods that an agent has reported as holding devices."""
    gone: Mapping[str, tuple[datetime, str]] = field(default_factory=dict)
    """Uid of a reserved pod that is gone or over -> when we noticed, and the agent's report (observedAt) by then."""
    let_go: Mapping[str, datetime] = field(default_factory=dict)
    """Uid of a reserved pod that is gone or over -> since when the agent's reports show that it holds nothing.

    Counts only from a report that is later than our knowledge of its end.
    """
    bare: Mapping[str, str] = field(default_factory=dict)
    """Uid of a reserved pod whose container runs -> observedAt of the first of the reports, in a row and since the
    container's start, in which it holds nothing."""
    degraded_since: Mapping[str, datetime] = field(default_factory=dict)
    """Uid of a reserved pod -> since when fresh telemetry shows a fault of one of its devices, by our clock."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """Workload uid -> what was thought of its generation."""
    status_written: Mapping[str, datetime] = field(default_factory=dict)
    """Workload uid -> when its status was last written."""
    known: frozenset[str] = frozenset()
    """Uids of workloads whose refusals were read back from status after a restart."""

    def blocked(self, key: str, now: datetime) -> bool:
        """True while the action may not be tried again."""
        setback = self.setbacks.get(key)
        return setback is not None and now < setback.until


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the cluster at `now` (the apiserver's clock)."""

    now: datetime
    salt: str
    """Randomness of this pass, for pod names."""
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    """By uid."""
    telemetry: Mapping[str, Telemetry] = field(default_factory=dict)
    """By node name."""
    pods: Mapping[str, Pod] = field(default_factory=dict)
    """Pods that carry our workload label, by uid."""
    departed: Mapping[str, Departure] = field(default_factory=dict)
    """Uids of pods that this process saw go, and how they went."""
    nodes: Mapping[str, Node] = field(default_factory=dict)
    """By name."""
    others: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Per node: the summed requests of all other live pods, and their number under `pods`."""
    memory: Memory = field(default_factory=Memory)
    limits: Limits = Limits()
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

    def with_memory(self, memory: Memory) -> "Snapshot":
        """The same cluster, remembered differently."""
        return replace(self, memory=memory)


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "never"
