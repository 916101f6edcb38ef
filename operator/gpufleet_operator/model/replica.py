"""The replicas of a workload as one pass finds them, and the pods that have to be deleted."""

from dataclasses import dataclass, field
from enum import StrEnum

from gpufleet_api.workload import PlacementState, WorkloadSpec
from gpufleet_operator.model.objects import Pod, Reservation, Workload


class WaitReason(StrEnum):
    """What a pending replica waits for."""

    NOTHING = "Nothing"
    POD = "Pod"
    """Its pod has to be made."""
    GATES = "OtherGates"
    """Its pod has scheduling gates beside ours: we decide when ours is the last."""
    DEVICES = "Devices"


class RemovalReason(StrEnum):
    """Why a pod is deleted. Doubles as the reason of the event."""

    SUSPENDED = "Suspended"
    SURPLUS = "SurplusPod"
    UNSCHEDULABLE = "SchedulerRefused"
    NODE_GONE = "NodeGone"
    REJECTED = "KubeletRefused"
    MISMATCH = "DeviceMismatch"
    DISRUPTED = "PodDisrupted"
    DEGRADED = "DeviceUnhealthy"

    @property
    def is_trouble(self) -> bool:
        """False for what the user or we wanted."""
        return self not in (RemovalReason.SUSPENDED, RemovalReason.SURPLUS)


@dataclass(frozen=True, slots=True)
class Removal:
    """A pod to delete. `node` is where it failed, if it was meant for one."""

    pod: Pod
    replica: int
    fault: RemovalReason
    message: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica. `recovered`: its reservation has to be written again, the node's object having been made anew."""

    index: int
    state: PlacementState
    wait: WaitReason = WaitReason.NOTHING
    pod: Pod | None = None
    entry: Reservation | None = None
    recovered: bool = False
    message: str = ""

    @property
    def gated(self) -> bool:
        """True while its pod is held back."""
        return self.pod is not None and bool(self.pod.gates)


@dataclass(frozen=True, slots=True)
class WorkloadReplicas:
    """All replicas of one workload."""

    workload: Workload
    spec: WorkloadSpec
    replicas: tuple[Replica, ...]
    removals: tuple[Removal, ...] = field(default=())
