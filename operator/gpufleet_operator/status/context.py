"""Inputs of a workload's status."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gpufleet_api.workload_status import EarmarkStatus
from gpufleet_operator.model.objects import Reservation, Workload
from gpufleet_operator.model.outcome import Outcome, stored_outcome
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.model.state_types import Backoff, RetryPause
from gpufleet_operator.placement.model import Diagnosis, Terms


@dataclass(frozen=True, slots=True)
class StatusContext:
    """One workload after this pass."""

    workload: Workload
    assessed: WorkloadReplicas | None = None
    """None when the object does not parse."""
    template_errors: tuple[str, ...] = ()
    internal_error: str = ""
    """Message of the exception that ended the decision on the workload in this pass."""
    create_error: str = ""
    """The apiserver's error when it last rejected a pod of the workload."""
    service_error: str = ""
    """The apiserver's error when it last rejected the workload's Service."""
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    """Reservations of all workloads after this pass, by pod uid."""
    kept: Mapping[int, Reservation] = field(default_factory=dict)
    """Reservations for the next pod of a replica, by replica: its pod is being replaced by one of a newer template."""
    picked: Mapping[int, Terms] = field(default_factory=dict)
    """Score of the replicas that this pass placed."""
    diagnosis: Diagnosis | None = None
    """Why replicas were not placed."""
    earmark: EarmarkStatus | None = None
    """Devices that are earmarked for the workload."""
    rejections: Mapping[tuple[int, str], Backoff] = field(default_factory=dict)
    """By replica and node."""
    pauses: Mapping[int, RetryPause] = field(default_factory=dict)
    """Consecutive rejections by replica; of a gang, the same for all of its replicas."""
    last_written: datetime | None = None
    """When the status was last written, by this process."""

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The assessed replicas; empty when there are none."""
        return self.assessed.replicas if self.assessed else ()

    @property
    def suspended(self) -> bool:
        """True when `spec.suspend` is true."""
        return self.assessed is not None and self.assessed.spec.suspend

    @property
    def last_rejection(self) -> str:
        """The latest rejection, as a message; empty without one."""
        if not self.rejections:
            return ""
        (replica, node), backoff = max(self.rejections.items(), key=lambda item: (item[1].at, item[0]))
        return f"{backoff.by} rejected replica {replica} on node {node}: {backoff.message}"

    @property
    def outcome(self) -> Outcome | None:
        """How the workload ended; None before the end."""
        return self.assessed.outcome if self.assessed else stored_outcome(self.workload)

    def reservation(self, replica: Replica) -> Reservation | None:
        return self.reservations.get(replica.pod.uid) if replica.pod else None
