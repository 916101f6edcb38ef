"""What a pass of the operator gets beside the cluster: its settings, and the state that earlier passes left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gpufleet_operator.model.extended_resources import DEFAULTS, Resources


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


@dataclass(frozen=True, slots=True)
class TemplateCheck:
    """What was found in one generation of a workload."""

    generation: int
    problems: tuple[str, ...] = ()
    """Empty: pods can be made from it."""
    unexpected_error: str = ""
    """The traceback, when no rule but the guard found the problem: a rule is missing."""


RefusalKey = tuple[str, int, str]
"""Workload uid, replica, node."""


@dataclass(frozen=True, slots=True)
class PassState:
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
    verdicts: Mapping[str, TemplateCheck] = field(default_factory=dict)
    """Workload uid -> what was thought of its generation."""
    status_written: Mapping[str, datetime] = field(default_factory=dict)
    """Workload uid -> when its status was last written."""
    known: frozenset[str] = frozenset()
    """Uids of workloads whose refusals were read back from status after a restart."""

    def blocked(self, key: str, now: datetime) -> bool:
        """True while the action may not be tried again."""
        setback = self.setbacks.get(key)
        return setback is not None and now < setback.until
