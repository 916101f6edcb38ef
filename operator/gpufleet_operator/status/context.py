"""Everything that a workload's status is written from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpufleet_operator.model.objects import Reservation, Workload
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.placement.model import Diagnosis, Terms


@dataclass(frozen=True, slots=True)
class StatusContext:
    """One workload after planning. `standing` is None when its template or the object itself can't be used."""

    workload: Workload
    standing: WorkloadReplicas | None = None
    problems: tuple[str, ...] = ()
    refused_create: str = ""
    """What the apiserver said to the pods, when it refused them."""
    entries: Mapping[str, Reservation] = field(default_factory=dict)
    """Reservations that stand after this pass, by pod uid (of all workloads)."""
    picked: Mapping[int, Terms] = field(default_factory=dict)
    """Score of the replicas that were picked for in this pass."""
    diagnosis: Diagnosis | None = None

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Where its replicas stand; none when it can't be used."""
        return self.standing.replicas if self.standing else ()

    @property
    def suspended(self) -> bool:
        """True when the user asked for no pods."""
        return self.standing is not None and self.standing.spec.suspend

    def entry(self, replica: Replica) -> Reservation | None:
        """The replica's reservation."""
        return self.entries.get(replica.pod.uid) if replica.pod else None
