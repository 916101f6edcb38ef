"""What the operator keeps of each API object: the fields it decides by, and nothing else.

Objects are projected to these frozen dataclasses when they arrive (`project.py`, `podview.py`), so that a few
thousand pods cost a few megabytes and every decision is made on plain data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_api.telemetry import Assignment, GPUTelemetry, TelemetryStatus
from gpufleet_api.workload import GPUWorkload, PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_operator.placement.model import PodNeeds, Taint


class PodPhase(StrEnum):
    """v1.PodPhase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Workload:
    """A GPUWorkload. `model` is None when the stored object doesn't parse; `invalid` then says why."""

    uid: str
    namespace: str
    name: str
    generation: int
    resource_version: str
    created: datetime
    deleting: bool
    model: GPUWorkload | None
    invalid: str = ""
    status: WorkloadStatus | None = None
    recorded: Mapping[int, ReplicaPlacement] = field(default_factory=dict)
    """What status says, by replica."""

    @property
    def full_name(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    def done(self, replica: int) -> bool:
        """True when status records that the replica's pod succeeded: it is not made again."""
        record = self.recorded.get(replica)
        return record is not None and record.state is PlacementState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A GPUTelemetry. `written_at` is the apiserver's time of the agent's last status write."""

    uid: str
    name: str
    generation: int
    resource_version: str
    deleting: bool
    model: GPUTelemetry
    written_at: datetime | None
    unreadable: str = ""
    """Why the status couldn't be parsed (`model.status` is None then)."""

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """The node's ledger as stored."""
        return tuple(self.model.spec.assignments)

    @property
    def status(self) -> TelemetryStatus | None:
        """What the agent says."""
        return self.model.status


@dataclass(frozen=True, slots=True)
class Container:
    """One app container's state.

    `started_at` is the node's clock at its current or last start. `devices` are the kubelet's own words in
    `allocatedResourcesStatus`, per resource; absent on kubelets that don't report it.
    """

    name: str
    running: bool = False
    ran: bool = False
    started_at: datetime | None = None
    devices: Mapping[str, frozenset[str]] = field(default_factory=dict)


class PodDeletion(StrEnum):
    """How a pod's object went away."""

    NEVER_BOUND = "NeverBound"
    """It was on no node, so no container of it ever ran."""
    OVER = "Over"
    """The kubelet had told that its containers are over, and let the object go."""
    FORCED = "Forced"
    """Deleted with grace 0. The kubelet lists it no longer, but kills its containers two seconds later."""


@dataclass(frozen=True, slots=True)
class TermShape:
    """What podpatch must know of one required node selector term."""

    empty: bool
    has_fields: bool


@dataclass(frozen=True, slots=True)
class AffinityShape:
    """How much of the path to `nodeSelectorTerms` exists; a JSON Patch can't make parents by itself."""

    affinity: bool = False
    node_affinity: bool = False
    terms: tuple[TermShape, ...] | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that carries our workload label."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    created: datetime
    workload_uid: str = ""
    """Uid of the GPUWorkload that controls it; empty: none does."""
    replica: int | None = None
    deleting: bool = False
    gates: tuple[str, ...] = ()
    node: str | None = None
    """spec.nodeName: bound there."""
    pinned: str | None = None
    """The node of the last `metadata.name` match field: ours, once the gate is off."""
    phase: PodPhase = PodPhase.PENDING
    reason: str = ""
    message: str = ""
    disrupted: bool = False
    """Condition DisruptionTarget: the cluster, not the application, ended it."""
    unschedulable: str | None = None
    """kube-scheduler's message while PodScheduled is False for reason Unschedulable."""
    nominated: bool = False
    """kube-scheduler is making room for it by preemption."""
    containers: tuple[Container, ...] = ()
    priority: int = 0
    needs: PodNeeds = field(default_factory=PodNeeds)
    affinity: AffinityShape = AffinityShape()
    annotated: bool = False
    """metadata.annotations exists."""

    @property
    def full_name(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def terminal(self) -> bool:
        """No container of it runs, or ever will again."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def deletion(self) -> PodDeletion:
        """How it went, if this is its last state. Kubelets (since 1.27) end the phase before they let the object go."""
        if self.node is None:
            return PodDeletion.NEVER_BOUND
        return PodDeletion.OVER if self.terminal else PodDeletion.FORCED

    @property
    def only_our_gate(self) -> bool:
        """Nobody but us holds it back."""
        return self.gates == (SCHEDULING_GATE,)

    @property
    def ran(self) -> bool:
        """Some app container of it has started."""
        return any(c.ran for c in self.containers)

    @property
    def place(self) -> str | None:
        """The only node on which it can run: bound there, or released with our pin."""
        return self.node or (None if self.gates else self.pinned)

    def container(self, name: str) -> Container | None:
        """The app container of that name, once the kubelet reports it."""
        return next((c for c in self.containers if c.name == name), None)


@dataclass(frozen=True, slots=True)
class Node:
    """A v1.Node. `allocatable`: CPU in millicores, the rest in units."""

    uid: str
    name: str
    resource_version: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    allocatable: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoundPod:
    """A pod of somebody else's on a node, as far as it takes room there."""

    uid: str
    node: str
    resource_version: str
    requests: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reservation:
    """One reservation and the node whose object carries it."""

    node: str
    assignment: Assignment
