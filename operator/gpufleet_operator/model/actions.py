"""The result of a decision, as plain data: `runtime.executor` executes it, tests compare it.

Order within a pass: Services and pods are created, pods are deleted and evicted, and reservations are written
(compare-and-swap), then ResourceClaims of the reserved devices are created, then the pods whose reservations and claims
were written are released, then status is written, then reports to people. The backoff of a failed action is kept under
its key, and a write without a response is in flight under it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim
from gpufleet_operator.model.cluster.changes import Subject
from gpufleet_operator.model.json_patch import JsonPatchOperation
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.model.report_actions import Report, Reports
from gpufleet_operator.model.state_types import Backoff, PassState
from gpufleet_operator.placement.model import Diagnosis


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Create a replica's pod. `name` is new unless the attempt repeats one that got no response."""

    workload_uid: str
    namespace: str
    name: str
    replica: int
    body: Mapping[str, Any]
    gang: bool = False
    """It is created together with the other missing pods of its workload, or none is."""

    @property
    def key(self) -> str:
        """The pods of a workload are rejected for the same reasons, so they share one key."""
        return create_key(self.workload_uid)


def create_key(workload_uid: str) -> str:
    """Returns the key of the backoff of a workload's pod creations."""
    return f"create/{workload_uid}"


@dataclass(frozen=True, slots=True)
class CreateService:
    """Create a workload's headless Service."""

    workload_uid: str
    body: Mapping[str, Any]

    @property
    def key(self) -> str:
        return service_key(self.workload_uid)


@dataclass(frozen=True, slots=True)
class RestoreService:
    """Apply the operator's fields of a workload's Service again, which another client changed."""

    workload_uid: str
    workload: str
    uid: str
    body: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The same as of its creation."""
        return service_key(self.workload_uid)


def service_key(workload_uid: str) -> str:
    """Returns the key of the backoff of a workload's Service."""
    return f"service/{workload_uid}"


@dataclass(frozen=True, slots=True)
class Reserve:
    """Replace the assignments of one node, if its object is still the one that the decision is based on."""

    node: str
    uid: str
    generation: int
    assignments: tuple[Assignment, ...]
    added: tuple[str, ...] = ()
    """Pod uids."""
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    """Those of `added` that have another reservation on the node."""

    @property
    def key(self) -> str:
        return reserve_key(self.node)

    def without(self, pod_uids: Collection[str]) -> "Reserve":
        """Returns the write without the reservations for these pods."""
        return replace(
            self,
            assignments=tuple(a for a in self.assignments if a.pod_uid not in pod_uids),
            added=tuple(uid for uid in self.added if uid not in pod_uids),
            removed=(*self.removed, *(uid for uid in self.replaced if uid in pod_uids)),
            replaced=tuple(uid for uid in self.replaced if uid not in pod_uids),
        )


_EVICT = "evict/"
_RESERVE = "reserve/"


def reserve_key(node: str) -> str:
    """Returns the key of the backoff of a node's reservations."""
    return f"{_RESERVE}{node}"


def subject_of(key: str) -> str:
    """Returns what the key of an action names: the uid of an object, or the name of a node."""
    return key.partition("/")[2]


def failed_nodes(state: PassState, now: datetime) -> frozenset[str]:
    """Returns the nodes to which the last write of reservations failed and may not be retried yet."""
    return frozenset(node for node, backoff in _backoffs(state, _RESERVE) if now < backoff.until)


def nodes_in_flight(state: PassState) -> frozenset[str]:
    """Returns the nodes to which the last write of reservations has no response yet."""
    return _nodes_of(state.in_flight)


def writable_again(state: PassState, now: datetime) -> frozenset[str]:
    """Returns the nodes whose reservations may be written again after a write that failed or was slow."""
    failed = frozenset(node for node, backoff in _backoffs(state, _RESERVE) if backoff.until <= now)
    return failed | _nodes_of(state.responded)


def unevictable_pods(state: PassState, now: datetime) -> frozenset[str]:
    """Returns the uids of pods whose eviction failed lately, usually by a PodDisruptionBudget."""
    return frozenset(uid for uid, backoff in _backoffs(state, _EVICT) if now < backoff.until)


def _nodes_of(keys: Iterable[str]) -> frozenset[str]:
    return frozenset(key.removeprefix(_RESERVE) for key in keys if key.startswith(_RESERVE))


def _backoffs(state: PassState, prefix: str) -> Iterator[tuple[str, Backoff]]:
    """Yields the names after a prefix of the keys, and their backoffs."""
    for key, backoff in state.write_backoffs.items():
        if key.startswith(prefix):
            yield key.removeprefix(prefix), backoff


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Pin a pod and remove its gate, once the reservations on all nodes in `after` and its claims are written."""

    workload_uid: str
    pod_uid: str
    namespace: str
    name: str
    node: str
    patch: tuple[Mapping[str, Any], ...]
    after: frozenset[str] = frozenset()
    after_claims: frozenset[str] = frozenset()
    """UIDs of the pods whose ResourceClaims this pass creates first."""
    together: bool = False
    """Whether it is of a gang that is not released yet: the reservations in `after` are stored together or not at all.
    """

    @property
    def key(self) -> str:
        return release_key(self.pod_uid)


def release_key(pod_uid: str) -> str:
    """Returns the key of the backoff of a pod's release."""
    return f"release/{pod_uid}"


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete this pod in this resource version, with its own grace period."""

    workload_uid: str
    workload: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    reason: RemovalReason
    message: str
    patch: tuple[JsonPatchOperation, ...] = ()
    """Applied before: removes the tracking finalizer of the pod's Job."""

    @property
    def key(self) -> str:
        return f"delete/{self.uid}"


@dataclass(frozen=True, slots=True)
class RestoreFinalizer:
    """Give a Job's pod its tracking finalizer back."""

    uid: str
    namespace: str
    name: str
    patch: tuple[JsonPatchOperation, ...]

    @property
    def key(self) -> str:
        """One per pod."""
        return f"restore/{self.uid}"


@dataclass(frozen=True, slots=True)
class WorkloadName:
    """Identity of a workload in events."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class EvictPod:
    """Evict this pod by the eviction API, which honors PodDisruptionBudgets."""

    workload_uid: str
    """Empty for a pod without a workload."""
    workload: str
    namespace: str
    name: str
    uid: str
    message: str
    reason: RemovalReason = RemovalReason.DRAINED
    """Also the reason of the event."""
    beneficiary: WorkloadName | None = None
    """The workload that the pod is evicted for; it gets the event Preempting."""
    neighbors: tuple[WorkloadName, ...] = ()
    """Other workloads on the device that the pod is moved from; each gets the event NeighborMoved."""

    @property
    def key(self) -> str:
        return f"{_EVICT}{self.uid}"


@dataclass(frozen=True, slots=True)
class DeleteWorkload:
    """Delete a finished workload, and with it its pods."""

    workload_uid: str
    namespace: str
    name: str

    @property
    def key(self) -> str:
        return f"delete-workload/{self.workload_uid}"


@dataclass(frozen=True, slots=True)
class Event:
    """Fields of a v1.Event."""

    reason: str
    note: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace a workload's status, then record its events."""

    workload_uid: str
    namespace: str
    name: str
    resource_version: str
    status: WorkloadStatus
    events: tuple[Event, ...] = ()
    progress: bool = False
    """It may be written some seconds later, or be replaced by a later one: see `status.changes.progress`."""

    @property
    def key(self) -> str:
        return status_key(self.workload_uid)


def status_key(workload_uid: str) -> str:
    """Returns the key of the backoff of a workload's status."""
    return f"status/{workload_uid}"


Action = (
    CreateService
    | RestoreService
    | CreatePod
    | DeletePod
    | DeleteWorkload
    | EvictPod
    | RestoreFinalizer
    | Reserve
    | CreateClaim
    | DeleteClaim
    | ReleasePod
    | WriteStatus
    | Report
)


@dataclass(frozen=True, slots=True)
class Actions:
    """All writes of one decision, and the state after the pass."""

    services: tuple[CreateService, ...] = ()
    restored_services: tuple[RestoreService, ...] = ()
    creates: tuple[CreatePod, ...] = ()
    deletes: tuple[DeletePod, ...] = ()
    evictions: tuple[EvictPod, ...] = ()
    restores: tuple[RestoreFinalizer, ...] = ()
    reserves: tuple[Reserve, ...] = ()
    claims: tuple[CreateClaim, ...] = ()
    deleted_claims: tuple[DeleteClaim, ...] = ()
    releases: tuple[ReleasePod, ...] = ()
    statuses: tuple[WriteStatus, ...] = ()
    reports: Reports = field(default_factory=Reports)
    late_reports: frozenset[str] = frozenset()
    """Names of nodes with conditions that a later pass writes, because there are too many."""
    expired: tuple[DeleteWorkload, ...] = ()
    state: PassState = field(default_factory=PassState)
    due: datetime | None = None
    """When to decide again even if nothing changes."""
    moments: Mapping[Subject, datetime] = field(default_factory=dict)
    """When the decision on an object may change without a change of the cluster: see `decide.moments`."""
    unplaced: Mapping[str, Diagnosis] = field(default_factory=dict)
    """By workload uid, for metrics."""
    waits: Mapping[str, str] = field(default_factory=dict)
    """What each gated pod waits for, by uid."""
    moves: Mapping[str, int] = field(default_factory=dict)
    """Number of moves that were decided, by reason."""
    rejected_moves: Mapping[str, int] = field(default_factory=dict)
    """Number of devices from which no pod could be moved in this pass, by reason."""
    inconsistencies: tuple[str, ...] = ()
    """Contradictions in the telemetry, such as one UUID on two nodes."""
    failed_decisions: Mapping[str, str] = field(default_factory=dict)
    """Uids of workloads or pods, and names of nodes, that a step left out because of an exception -> traceback."""
    unexpected_errors: Mapping[str, str] = field(default_factory=dict)
    """Workloads whose template failed with an unexpected error -> traceback, in the pass that checked it."""

    @property
    def gated(self) -> Mapping[str, int]:
        """Number of gated pods by what they wait for."""
        return Counter(self.waits.values())

    @property
    def empty(self) -> bool:
        """True when there is nothing to write."""
        pods = self.creates or self.deletes or self.evictions or self.restores or self.releases
        claims = self.claims or self.deleted_claims
        changes = self.services or self.restored_services or pods or claims or self.reserves or self.statuses
        return not (changes or self.expired) and self.reports.empty
