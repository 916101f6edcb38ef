"""The replicas of a workload as one pass assesses them, and the pods to delete."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.model.objects import Pod, Reservation, Workload
from gpufleet_operator.model.outcome import Outcome

ENDED_STATES = (PlacementState.SUCCEEDED, PlacementState.FAILED, PlacementState.UNKNOWN)
"""States of a replica without a pod that runs or is to be created."""


class WaitReason(StrEnum):
    """What a pending replica waits for."""

    NOTHING = "Nothing"
    POD = "Pod"
    """Its pod has to be created."""
    OTHER_GATES = "OtherSchedulingGates"
    """Its pod has scheduling gates of other controllers. It is placed when the operator's gate is the last."""
    REPLACEMENT = "Replacement"
    """Its pod is being deleted, because it was created for other settings or an older template."""
    DEVICES = "Devices"
    RESTART_BACKOFF = "RestartBackOff"
    """Its pod has to be created once the backoff after a failure is over."""
    VALID_TEMPLATE = "ValidTemplate"
    """No pod is created for it, or its gated pod is not released, because `spec.template` is invalid."""
    OWNER = "Owner"
    """The owner of the pods has not created its pod."""
    RESUME = "Resume"
    """The workload is suspended; its pod has another owner and stays gated."""
    PREDECESSOR = "Predecessor"
    """The devices of the pod that it replaces are kept for it, and cannot be passed on yet."""

    CLAIM = "ResourceClaim"
    """The apiserver rejects the ResourceClaim of its devices, for example because of a quota."""


WITHOUT_USABLE_POD = (
    WaitReason.POD,
    WaitReason.RESTART_BACKOFF,
    WaitReason.OTHER_GATES,
    WaitReason.REPLACEMENT,
    WaitReason.PREDECESSOR,
    WaitReason.VALID_TEMPLATE,
    WaitReason.OWNER,
    WaitReason.RESUME,
    WaitReason.CLAIM,
)
"""What a replica waits for before it can be placed or released; a gang waits with it."""


class RemovalReason(StrEnum):
    """Why a pod is deleted; also the reason of the event."""

    SUSPENDED = "Suspended"
    SURPLUS = "SurplusPod"
    OUTDATED = "TemplateChanged"
    UNSCHEDULABLE = "Unschedulable"
    NOT_SCHEDULED = "NotScheduled"
    """No scheduler has responded to it."""
    NODE_DELETED = "NodeDeleted"
    NODE_NOT_READY = "NodeNotReady"
    RESOURCE_RENAMED = "ResourceRenamed"
    TRANSPORT_CHANGED = "TransportChanged"
    """It was created for another transport than that of the nodes with devices for it."""
    REJECTED = "KubeletRejected"
    MISMATCH = "DeviceMismatch"
    DISRUPTED = "PodDisrupted"
    UNHEALTHY = "DeviceUnhealthy"
    DRAINED = "PodEvicted"
    """A device of it is cordoned with `drain`. It is evicted, not deleted."""
    PREEMPTED = "Preempted"
    """A workload of higher priority needs its devices. It is evicted, not deleted."""
    MOVED = "Moved"
    """Its device runs out of memory, and another one is reserved for its next pod. It is evicted, not deleted."""
    INCOMPLETE_GANG = "IncompleteGang"
    """Another pod of the gang was rejected, so the gang releases its quota and its devices."""
    RESTARTED = "AttemptSuperseded"
    FINISHED = "WorkloadFinished"

    @property
    def is_warning(self) -> bool:
        """False for a deletion that the user or the operator intends."""
        return self not in _INTENDED


_INTENDED = (
    RemovalReason.SUSPENDED,
    RemovalReason.SURPLUS,
    RemovalReason.OUTDATED,
    RemovalReason.INCOMPLETE_GANG,
    RemovalReason.RESOURCE_RENAMED,
    RemovalReason.TRANSPORT_CHANGED,
    RemovalReason.FINISHED,
)

EVICTIONS = frozenset({RemovalReason.DRAINED, RemovalReason.PREEMPTED, RemovalReason.MOVED})
"""Reasons of pods that are evicted. Replicas that need each other all restart after one of them."""


class RemovalMethod(StrEnum):
    """How a pod is removed."""

    DELETE = "Delete"
    DELETE_UNCOUNTED = "DeleteUncounted"
    """Without its Job's tracking finalizer, so that the Job does not count it."""
    NONE = "None"
    """It stays: nothing would make another one, or its owner removes it."""
    REPLACE_CLAIM = "ReplaceClaim"
    """It stays, and gets other devices."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A pod to delete. `node` is the node of its devices, if it was rejected there."""

    pod: Pod
    replica: int
    reason: RemovalReason
    message: str
    node: str | None = None
    method: RemovalMethod = RemovalMethod.DELETE
    deferred: bool = False
    """It is recorded in the status first, and carried out in a later pass."""


class UnplacedReason(StrEnum):
    """Why a pod of a workload without a template is not one of its replicas."""

    INVALID_POD = "InvalidPod"
    """It does not request what the workload reserves."""
    SURPLUS = "SurplusPod"
    """Each replica of the gang has an older pod."""
    UNGATED = "UngatedPod"
    """It was created without the scheduling gate, and has no reservation."""


@dataclass(frozen=True, slots=True)
class UnplacedPod:
    """A pod with the label of a workload that is not one of its replicas."""

    pod: Pod
    reason: UnplacedReason
    message: str


@dataclass(frozen=True, slots=True)
class Replica:
    index: int
    state: PlacementState
    wait_reason: WaitReason = WaitReason.NOTHING
    pod: Pod | None = None
    reservation: Reservation | None = None
    recovered: bool = False
    """The reservation has to be written again, because the node's GPUTelemetry was deleted and created."""
    message: str = ""
    unlisted: bool = False
    """Allocated before; the kubelet no longer lists its devices: see `ledger.verify`."""
    retry_paused: bool = False
    """No pod is created for it now: see `decide.retries.rejections`."""
    attempt: int = 0
    """Number of the attempt, from 0; its pod has this number as a label."""
    failures: int = 0
    """Number of failures."""
    removal: str = ""
    """Reason for which its pod is removed, as recorded in status; empty: it is not, or needs no record."""
    ready: bool = False
    """Its pod is Ready on a node that responds, and every source shows the reserved devices."""
    unconfirmed: str = ""
    """Source that does not show the devices of a bound pod yet; empty: every existing source does."""
    unreachable: str = ""
    """Why the node of its bound pod does not respond; empty: it does. What its pod's conditions say may be outdated."""
    starts_at: datetime | None = None
    """When its pod may be created, if it waits for that."""
    outdated: bool = False
    """Its pod was built from an older template."""
    reassigned: bool = False
    """Its released pod gets other devices by another claim: see `decide.claims.reassignment`."""

    @property
    def gated(self) -> bool:
        """True while its pod has scheduling gates."""
        return self.pod is not None and bool(self.pod.gates)

    @property
    def may_be_placed(self) -> bool:
        """True while its pod has scheduling gates, or is released and has neither a claim nor usable devices."""
        return self.gated or (self.reassigned and self.wait_reason is WaitReason.DEVICES)


@dataclass(frozen=True, slots=True)
class GroupRestart:
    """Consecutive starts of all replicas after the loss of one. They are not failures."""

    count: int
    at: datetime
    """The pods are created from then on."""


@dataclass(frozen=True, slots=True)
class WorkloadReplicas:
    """All replicas of one workload."""

    workload: Workload
    spec: WorkloadSpec
    replicas: tuple[Replica, ...]
    removals: tuple[Removal, ...] = field(default=())
    outcome: Outcome | None = None
    """None while the workload has not ended."""
    group_restart: GroupRestart | None = None
    """The last start of all replicas after the loss of one, as it is in status after this pass."""
    incomplete_since: datetime | None = None
    """Since when it is a gang of which some replicas run without the others; None: it is not."""
    earlier_failures: int = 0
    """Failures of replicas that `spec.replicas` does not have any more."""
    template_errors: tuple[str, ...] = ()
    """Why no pod can be created from `spec.template`; empty: pods can. Existing pods are not affected."""
    surplus_pods: int = 0
    """Pods of no replica, including those that are being deleted."""
    unplaced: tuple[UnplacedPod, ...] = ()
    """Pods of a workload without a template that are not replicas."""
    reserved_in_flight: tuple[Reservation, ...] = ()
    """Reservations of replicas that are left out because a write of theirs has no response."""
