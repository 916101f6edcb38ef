"""API objects, reduced to the fields that decisions need.

Objects are decoded into these frozen dataclasses when they arrive (`cache.decode`, `cache.decode_pod`), so that a few
thousand pods cost a few megabytes and every decision is made on plain data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.names import CLAIM_PREFIX, SCHEDULING_GATE, Transport
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry, TelemetryStatus
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload import GPUWorkload
from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_operator.model.claims.resource_claim import ClaimReference
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.model.pod_state.owner import DeviceRequest, PodOwner
from gpufleet_operator.model.pod_traits import PodTraits
from gpufleet_operator.placement.model import PodNeeds, Taint

DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS = 30
"""Of a pod whose spec has none, by the API."""
MAX_GRACE_PERIOD_SECONDS = 2**31 - 1
"""Maximum that a reservation records: 68 years. The apiserver accepts up to 2^63 - 1 in a pod."""


DEFAULT_SCHEDULER = "default-scheduler"
"""`spec.schedulerName` of a pod whose template has none."""


_UID_DIGITS = 8
_MAX_NAME_IN_CLAIM = 253 - len(CLAIM_PREFIX) - 1 - _UID_DIGITS
"""Part of the pod's name that fits between prefix and uid."""


class PodPhase(StrEnum):
    """v1.PodPhase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Workload:
    """A GPUWorkload. `model` is None when the stored object does not parse; `invalid` then has the message."""

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
    stored_placements: Mapping[int, ReplicaPlacement] = field(default_factory=dict)
    """`status.placements` by replica."""
    kueue_labels: Mapping[str, str] = field(default_factory=dict)
    """Its labels for Kueue."""

    @property
    def full_name(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    def has_succeeded(self, replica: int) -> bool:
        """Returns True when the stored status has the replica as succeeded: no pod is created for it again."""
        stored = self.stored_placements.get(replica)
        return stored is not None and stored.state is PlacementState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A GPUTelemetry."""

    uid: str
    name: str
    generation: int
    resource_version: str
    deleting: bool
    model: GPUTelemetry
    confirmed_at: datetime | None
    """The apiserver's time of the agent's last status write, or of a later renewal of the Lease that confirms it."""
    decode_error: str = ""
    """Why the status does not parse; `model.status` is None then."""
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    """`status.conditions` by type, also of a status that does not parse otherwise."""

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """The stored reservations of the node."""
        return tuple(self.model.spec.assignments)

    @property
    def status(self) -> TelemetryStatus | None:
        """The agent's report."""
        return self.model.status

    @property
    def transport(self) -> Transport:
        """How the devices of the node get into containers."""
        status = self.model.status
        return (status.transport if status else None) or Transport.DEVICE_PLUGIN


class PodDeletion(StrEnum):
    """How a pod was deleted, by its last state."""

    NEVER_BOUND = "NeverBound"
    """It had no node, so none of its containers ever ran."""
    TERMINATED = "Terminated"
    """The kubelet had reported the end of its containers before the object was deleted."""
    SUCCEEDED = "Succeeded"
    """As Terminated, and all of its containers had succeeded before the deletion was requested."""
    FORCED = "Forced"
    """Deleted with grace 0, so that the kubelet no longer lists it, or its label was removed: containers may run."""


@dataclass(frozen=True, slots=True)
class TermShape:
    """The form of one required node selector term, as `pods.release` needs it."""

    empty: bool
    has_fields: bool


@dataclass(frozen=True, slots=True)
class AffinityShape:
    """How much of the path to `nodeSelectorTerms` exists: a JSON Patch does not create parents."""

    affinity: bool = False
    node_affinity: bool = False
    terms: tuple[TermShape, ...] | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with the workload label."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    created: datetime
    workload_uid: str = ""
    """Uid of the GPUWorkload that controls it; empty if none does."""
    replica: int | None = None
    workload_label: str = ""
    """The workload that its label names."""
    owner: PodOwner | None = None
    """What controls it, unless that is a GPUWorkload."""
    rank: tuple[int, ...] = ()
    """Its place among the pods of its owner, by their labels: an index, or numbers to sort by; empty: unknown."""
    run: str = ""
    """Identity of the Job, or of the attempt of a JobSet, that it is part of; empty for all other pods."""
    finalizers: tuple[str, ...] = ()
    assigned: bool = False
    """It has the operator's annotation: it was released by it."""
    replaced: str = ""
    """The operator's annotation on a pod whose Job must not count it."""
    device_requests: tuple[DeviceRequest, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    """Name and image of each container of its spec."""
    attempt: int = 0
    """Number of the attempt, from 0, by its label."""
    deleting: bool = False
    deletion_requested: datetime | None = None
    """When its deletion was requested, before its grace period; whole seconds, by the apiserver's clock."""
    gates: tuple[str, ...] = ()
    node: str | None = None
    """`spec.nodeName`: the node that it is bound to."""
    pinned: str | None = None
    """The node of the last `metadata.name` match field: the operator's pin, once the gate is removed.

    Of a pod that follows its claim, the node of the operator's annotation.
    """
    phase: PodPhase = PodPhase.PENDING
    reason: str = ""
    message: str = ""
    disrupted: bool = False
    """Condition DisruptionTarget: the cluster ended it, not the application."""
    unschedulable: str | None = None
    """kube-scheduler's message while PodScheduled is False for reason Unschedulable."""
    nominated: bool = False
    """kube-scheduler preempts other pods for it (`status.nominatedNodeName`)."""
    scheduler: str = DEFAULT_SCHEDULER
    """`spec.schedulerName`."""
    claims: tuple[str, ...] = ()
    """ResourceClaims, or templates of them, that it refers to, such as `ResourceClaim "a"`."""
    device_claim: ClaimReference | None = None
    """The claim with its devices; None: it requests them by an extended resource."""
    volume_claims: tuple[str, ...] = ()
    """Names of the PersistentVolumeClaims of its volumes."""
    ready: bool = False
    """Condition Ready."""
    not_ready: str = ""
    """Message of the condition Ready while it is not True."""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    template_hash: str = ""
    """Hash of what it was built from; empty without the label."""
    priority: int = 0
    preempts: bool = True
    """False if its `preemptionPolicy` is Never."""
    needs: PodNeeds = field(default_factory=PodNeeds)
    traits: PodTraits = field(default_factory=PodTraits)
    affinity: AffinityShape = AffinityShape()
    has_annotations: bool = False
    """`metadata.annotations` exists."""
    waiting_for: str = ""
    """The operator's annotation, as long as the pod is gated."""
    termination_grace_period_seconds: int = DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS

    @property
    def full_name(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def labeled_workload(self) -> str:
        """namespace/name of the workload in its label."""
        return f"{self.namespace}/{self.workload_label}"

    @property
    def transport(self) -> Transport:
        """The transport by which it requests devices. It can run only on nodes with this transport."""
        return Transport.DRA if self.device_claim is not None else Transport.DEVICE_PLUGIN

    @property
    def claim_name(self) -> str:
        """The name of the claim with its devices; empty: it has none.

        A pod of another owner names a template that never exists, since its own name is not known before its creation.
        """
        if self.device_claim is None:
            return ""
        return self.device_claim.name or f"{CLAIM_PREFIX}{self.name[:_MAX_NAME_IN_CLAIM]}-{self.uid[:_UID_DIGITS]}"

    @property
    def follows_claim(self) -> bool:
        """True when its claim determines its node, without a pin by the operator."""
        return self.device_claim is not None and bool(self.device_claim.template)

    @property
    def terminal(self) -> bool:
        """True when its phase is Succeeded or Failed: no container of it will run again."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def deletion(self) -> PodDeletion:
        """How it was deleted, if this is its last state.

        Kubelets (since 1.27) set a terminal phase before the object can be deleted.
        """
        if self.node is None:
            # A watch with a selector reports the removal of the label like a deletion. A pod that may be bound goes on.
            return PodDeletion.NEVER_BOUND if self.gates or self.deleting else PodDeletion.FORCED
        if self.phase is PodPhase.SUCCEEDED and not self.stopped:
            return PodDeletion.SUCCEEDED
        return PodDeletion.TERMINATED if self.terminal else PodDeletion.FORCED

    @property
    def stopped(self) -> bool:
        """True when a container ended after the deletion was requested, so it was stopped, whatever its exit code.

        A program that catches SIGTERM exits with 0, and the pod's phase is Succeeded although its work is not done.
        """
        ends = [c.terminated.finished_at for c in self.containers if c.terminated and c.terminated.finished_at]
        requested = self.deletion_requested
        return requested is not None and any(end >= requested for end in ends)

    @property
    def only_operator_gate(self) -> bool:
        """True when the operator's scheduling gate is the only one."""
        return self.gates == (SCHEDULING_GATE,)

    @property
    def ran(self) -> bool:
        """True when an app container of it has started."""
        return any(c.ran for c in self.containers)

    @property
    def has_started(self) -> bool:
        """True when a container of it has started, init containers included."""
        return any(c.ran or c.running for c in (*self.containers, *self.init_containers))

    @property
    def target_node(self) -> str | None:
        """The only node on which it can run: it is bound, or released, to it."""
        return self.node or (None if self.gates else self.pinned)

    def container(self, name: str) -> Container | None:
        """Returns the app or init container of that name, if the kubelet has reported it."""
        return next((c for c in (*self.containers, *self.init_containers) if c.name == name), None)


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """The operator's own condition of a Node, as in v1.NodeCondition."""

    status: ConditionStatus
    reason: str
    message: str
    last_transition_time: str


@dataclass(frozen=True, slots=True)
class Node:
    """A v1.Node. `allocatable` has CPU in millicores, other resources in units."""

    uid: str
    name: str
    resource_version: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    not_ready: str = ""
    """Message of the condition Ready if that is not True, such as `Kubelet stopped posting node status.`."""
    allocatable: Mapping[str, int] = field(default_factory=dict)
    condition: NodeCondition | None = None
    """As stored; None: the Node does not have it."""
    scale_down_held: bool = False
    """The operator has set the annotation that keeps cluster-autoscaler from removing it."""


@dataclass(frozen=True, slots=True)
class BoundPod:
    """A pod without the workload label that is bound to a node, with its requests and traits."""

    uid: str
    node: str
    resource_version: str
    requests: Mapping[str, int] = field(default_factory=dict)
    traits: PodTraits = field(default_factory=PodTraits)
    deleting: bool = False
    name: str = ""
    """Empty without a request of an extended resource: most pods of a cluster have none."""
    movable: bool = False
    """It has a controller that creates it again, and not on the same node as that of a DaemonSet or a static pod."""


@dataclass(frozen=True, slots=True)
class Service:
    """A Service with the workload label. `owner_uid` is that of the object that controls it; empty if none does."""

    uid: str
    namespace: str
    resource_version: str
    owner_uid: str = ""
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the operator sets, as JSON."""


@dataclass(frozen=True, slots=True)
class ResourceQuota:
    """A ResourceQuota, with the amounts in its status, which the apiserver enforces."""

    uid: str
    resource_version: str
    namespace: str
    hard: Mapping[str, str] = field(default_factory=dict)
    used: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reservation:
    """An assignment, and the node whose GPUTelemetry stores it."""

    node: str
    assignment: Assignment
