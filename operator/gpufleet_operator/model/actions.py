"""What a decision asks to be done. Plain data: `execute.py` carries it out, tests compare it.

Order within a pass: pods are made and deleted, reservations written (compare-and-swap), then the pods of reservations
that went through are released, then status is written. Each action has a key, under which its failures are remembered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gpufleet_api.telemetry import Assignment
from gpufleet_api.workload import WorkloadStatus
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement.model import Diagnosis


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Make a replica's pod. `name` is new for each attempt that isn't a repetition."""

    workload_uid: str
    namespace: str
    name: str
    replica: int
    body: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Shared by all pods of a workload: they are refused for the same reasons."""
        return create_key(self.workload_uid)


def create_key(workload_uid: str) -> str:
    """Under which a workload's refused pods are remembered."""
    return f"create/{workload_uid}"


@dataclass(frozen=True, slots=True)
class Reserve:
    """Replace the assignments of one node, if its object is still the one that was decided on."""

    node: str
    uid: str
    generation: int
    assignments: tuple[Assignment, ...]
    added: tuple[str, ...] = ()
    """Pod uids."""
    removed: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """One per node."""
        return reserve_key(self.node)


def reserve_key(node: str) -> str:
    """Under which a node's refused reservations are remembered."""
    return f"reserve/{node}"


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Pin a pod and take its gate off. Only after all of `after` (nodes reserved in this pass) went through."""

    workload_uid: str
    pod_uid: str
    namespace: str
    name: str
    node: str
    patch: tuple[Mapping[str, Any], ...]
    after: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """One per pod."""
        return f"release/{self.pod_uid}"


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete exactly this pod in exactly this state, with its own grace period."""

    workload_uid: str
    workload: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    fault: RemovalReason
    message: str

    @property
    def key(self) -> str:
        """One per pod."""
        return f"delete/{self.uid}"


@dataclass(frozen=True, slots=True)
class Event:
    """A v1.Event about a workload."""

    reason: str
    note: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace a workload's status, then tell its events."""

    workload_uid: str
    namespace: str
    name: str
    resource_version: str
    status: WorkloadStatus
    events: tuple[Event, ...] = ()

    @property
    def key(self) -> str:
        """One per workload."""
        return f"status/{self.workload_uid}"


@dataclass(frozen=True, slots=True)
class Actions:
    """Everything that one decision asks for."""

    creates: tuple[CreatePod, ...] = ()
    deletes: tuple[DeletePod, ...] = ()
    reserves: tuple[Reserve, ...] = ()
    releases: tuple[ReleasePod, ...] = ()
    statuses: tuple[WriteStatus, ...] = ()
    memory: PassState = field(default_factory=PassState)
    due: datetime | None = None
    """When to decide again although nothing happened."""
    unplaced: Mapping[str, Diagnosis] = field(default_factory=dict)
    """By workload uid, for metrics and logs."""
    gated: Mapping[str, int] = field(default_factory=dict)
    """Gated pods by what they wait for."""
    inconsistencies: tuple[str, ...] = ()
    """What is wrong with the cluster itself, such as one UUID on two nodes."""
    unexpected_errors: Mapping[str, str] = field(default_factory=dict)
    """Workloads found unusable for a reason that no rule foresaw -> traceback. Only in the pass that found out."""

    @property
    def empty(self) -> bool:
        """True when there is nothing to write."""
        return not (self.creates or self.deletes or self.reserves or self.releases or self.statuses)
