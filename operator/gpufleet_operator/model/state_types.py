"""The settings of a pass, and the state after the previous pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from gpufleet_api.names import DRA_DRIVER, Reclaim, Transport
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY, PodPolicy
from gpufleet_operator.placement.model import Terms
from gpufleet_operator.placement.packing import PodType

_MAX_MESSAGE_LENGTH = 1024

BACKOFF_RESET = timedelta(minutes=10)
"""A backoff that ended this long ago is dropped: the next failure is counted as the first one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings of decisions."""

    resources: Resources = DEFAULTS
    pod_policy: PodPolicy = DEFAULT_POLICY
    claims: bool = True
    """Whether nodes with transport DRA are used; it requires the permission to create ResourceClaims."""
    dra_driver: str = DRA_DRIVER
    """Driver that serves ResourceClaims, and name of its DeviceClass."""
    stale_after: timedelta = timedelta(seconds=90)
    """Older telemetry is not used."""
    unschedulable_grace: timedelta = timedelta(seconds=5)
    """How long kube-scheduler must report a pinned pod as unschedulable before the pod is replaced."""
    settling_grace: timedelta = timedelta(seconds=30)
    """The same while telemetry is stale, or the node's allocatable differs from the agent's healthy devices."""
    missing_devices_grace: timedelta = timedelta(seconds=10)
    """A container that holds no device in two reports since its start, this far apart, runs without devices."""
    container_exit_delay: timedelta = timedelta(seconds=5)
    """How long a device stays reserved after the first report without its pod, when the pod was deleted by force.

    The pod may have been bound just before, and the kubelet may start it only now. The grace period of the pod is added
    if the agent does not see processes. Also how long an agent may take to report that a terminated pod holds nothing.
    """
    degraded_grace: timedelta = timedelta(seconds=10)
    """How long a device must be unhealthy before its pod is replaced, if `onDegraded` is Replace."""
    scheduling_timeout: timedelta = timedelta(seconds=60)
    """How long a released pod may have no response of any scheduler before its devices are released."""
    volume_binding_timeout: timedelta = timedelta(minutes=10)
    """How much longer that is for a pod with PersistentVolumeClaims: kube-scheduler waits so long (its
    `bindTimeoutSeconds`) for a volume that is being provisioned, and reports nothing meanwhile."""
    rejection_limit: int = 3
    """Consecutive rejected pods of a replica after which its retries are paused; as many in each `max_retry_pause`."""
    max_retry_pause: timedelta = timedelta(minutes=10)
    """Longest pause between two retries of a replica while no node changes."""
    rejections_reset_after: timedelta = timedelta(minutes=1)
    """How long a pod must hold its devices before earlier rejections of its replica are dropped."""
    restart_base: timedelta = timedelta(seconds=10)
    """Time from the first failure of a replica until it restarts. It doubles with each failure."""
    restart_cap: timedelta = timedelta(minutes=10)
    successor_limit: timedelta = timedelta(seconds=120)
    """How long unused devices are kept for the next pod of a replica during an update."""
    message_interval: timedelta = timedelta(seconds=10)
    """Shortest interval between two status writes that differ in the numbers of messages only."""
    default_reclaim: Reclaim = Reclaim.NEVER
    """Default of `spec.placement.reclaim`."""
    reclaim_after: timedelta = timedelta(minutes=10)
    """How long a container must be observed before others may get memory that it does not use."""
    reserve_after: timedelta = timedelta(minutes=2)
    """How long the first workload that needs several devices together waits before devices are earmarked for it."""
    fair_namespaces: bool = True
    """Whether, among workloads of equal priority, those of the namespace with the lowest use of devices come first."""
    preemption: bool = True
    """Whether pods are evicted for workloads of higher priority."""
    pressure_sample_interval: timedelta = timedelta(seconds=20)
    """Shortest time between two samples of a device that count as samples in a row. The agent's heartbeat is longer."""
    device_rest: timedelta = timedelta(minutes=1)
    """Time from a move, tried or done, until the next one from the same device."""
    replica_rest: timedelta = timedelta(minutes=10)
    """Time for which a moved replica is not moved again."""
    max_creates: int = 64
    """Pods that a pass creates in one namespace, not counting gangs. The last workload gets all of its pods."""
    holds_statuses: bool = False
    """Whether statuses that only show a step on the way to Ready are held back: see `runtime.pacing.held_statuses`."""
    max_moves_per_hour: int = 60
    """Maximum number of moves per hour in the cluster."""
    node_conditions: bool = True
    """Whether Nodes with GPUs get the operator's condition."""

    @property
    def claims_keep_promise(self) -> bool:
        """Whether claims request what is promised: another driver may limit the container to it."""
        return self.dra_driver != DRA_DRIVER


@dataclass(frozen=True, slots=True)
class Backoff:
    """An operation that failed: the number of consecutive failures, and until when it is not retried."""

    count: int
    at: datetime
    until: datetime
    message: str = ""
    by: str = ""
    """Component that rejected it: `kube-scheduler`, `kubelet`, `gpufleet`, `apiserver`, or `network`."""

    @classmethod
    def following(
        cls, previous: "Backoff | None", now: datetime, *, base: float, cap: float, message: str, by: str
    ) -> "Backoff":
        """Returns the next backoff: `base` seconds, doubled with each failure, at most `cap`."""
        count = previous.count + 1 if previous else 1
        delay = min(cap, base * 2 ** min(count - 1, 30))
        return cls(count, now, now + timedelta(seconds=delay), message[:_MAX_MESSAGE_LENGTH], by)


@dataclass(frozen=True, slots=True)
class TemplateCheck:
    """The result of validating one generation of a workload."""

    generation: int
    errors: tuple[str, ...] = ()
    """In the grammar of `field.Error`; empty: pods can be created from it."""
    template_hash: str = ""
    """Hash of what pods are built from, which says which pods have the template; empty: none can have it."""
    pod_type: PodType | None = None
    """What a replica requests, for the mix; None: it requests shares, which are parts of the devices of the fleet, or
    there is no valid template."""
    unexpected_error: str = ""
    """Traceback of an exception that the template caused although no rule rejected it: a rule is missing."""


RejectionKey = tuple[str, int, str]
"""Workload uid, replica, node."""


class NodeProperty(StrEnum):
    """A property of a node on which the rejection of a pod may depend."""

    LABELS = "Labels"
    TAINTS = "Taints"
    CAPACITY = "Capacity"
    """Allocatable, offered devices, and the pods on the node."""
    DEVICES = "Devices"
    """Allocatable and offered devices."""


@dataclass(frozen=True, slots=True)
class ObservedNode:
    """The state of a node when it rejected a pod."""

    depends_on: frozenset[NodeProperty]
    """What the rejection named. Changes of other properties do not count."""
    uid: str = ""
    """Empty: there was no such node."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[object, ...] = ()
    """And whether the node is unschedulable or not ready."""
    allocatable: Mapping[str, int] = field(default_factory=dict)
    offered: frozenset[str] = frozenset()
    """UUIDs of the devices that the node offers."""
    requested: Mapping[str, int] = field(default_factory=dict)
    """Requests of the pods without a workload, and their number."""
    running: frozenset[str] = frozenset()
    """Uids of running pods of other workloads."""

    def may_have_improved(self, now: "ObservedNode") -> bool:
        """Returns True when the node changed so that it may accept what it rejected."""
        changed = {
            NodeProperty.LABELS: self.labels != now.labels,
            NodeProperty.TAINTS: self.taints != now.taints,
            NodeProperty.CAPACITY: self._offers_changed(now) or self._pods_ended(now),
            NodeProperty.DEVICES: self._offers_changed(now),
        }
        return self.uid != now.uid or any(changed[name] for name in self.depends_on)

    def _offers_changed(self, now: "ObservedNode") -> bool:
        return (self.allocatable, self.offered) != (now.allocatable, now.offered)

    def _pods_ended(self, now: "ObservedNode") -> bool:
        ended = any(now.requested.get(name, 0) < amount for name, amount in self.requested.items())
        return ended or not self.running <= now.running


@dataclass(frozen=True, slots=True)
class RetryPause:
    """Consecutive rejected pods of one replica, and until when no other pod is created for it."""

    count: int
    at: datetime
    """When the last one was rejected."""
    retry_from: datetime
    """No node is tried before then; afterwards, those that are new, changed or, if that can help, were not tried."""
    until: datetime
    """All nodes are tried from then on. Both are in the past after few rejections."""
    message: str
    """The last rejection."""
    earlier: tuple[datetime, ...] = ()
    """Times of the rejections before the last one, as many as its limit needs."""
    depends_on: frozenset[NodeProperty] = frozenset()
    """What the last rejection named. Empty: other nodes would reject the pod as well."""
    rejected_on: Mapping[str, ObservedNode] = field(default_factory=dict)
    """The nodes that rejected, by name."""
    nodes: frozenset[str] = frozenset()
    """All nodes at that time."""


@dataclass(frozen=True, slots=True)
class RejectionOnNode:
    """A pod that a node rejected, or gave other devices than the reserved ones."""

    workload_uid: str
    at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Rejections:
    """Nodes that rejected a replica, and for how long each is excluded for it."""

    backoffs: Mapping[RejectionKey, Backoff] = field(default_factory=dict)
    counted_pods: frozenset[str] = frozenset()
    """Uids of existing pods whose rejection is in `backoffs` already: their deletion may take several passes."""
    pauses: Mapping[tuple[str, int], RetryPause] = field(default_factory=dict)
    """Workload uid, replica (-1: all replicas of a gang) -> its consecutive rejections."""
    allocated_since: Mapping[str, datetime] = field(default_factory=dict)
    """Pod uid -> since when it holds its devices without interruption."""
    generations: Mapping[str, int] = field(default_factory=dict)
    """Workload uid -> the generation that the rejections are about."""
    by_node: Mapping[str, tuple[RejectionOnNode, ...]] = field(default_factory=dict)
    """The recent ones of each node, of all workloads, oldest first."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A report about an object, as last written."""

    at: datetime
    note: str = ""
    """Of a pod's explanation, without numbers."""


@dataclass(frozen=True, slots=True)
class PickedDevices:
    """A reservation as the pass that picked its devices made it, and the score of the devices."""

    reservation: Reservation
    terms: Terms


@dataclass(frozen=True, slots=True)
class UpToDateNode:
    """The versions of a node's objects at which no condition was to be written."""

    telemetry_version: str
    node_version: str
    stale: bool
    drained: frozenset[str] = frozenset()
    """UUIDs of devices that are cordoned with `drain` at present: such an entry may end by itself."""
    excluded_until: datetime | None = None
    """End of the time in which no devices are picked there, because the node rejects pods."""


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """Devices that one pod has, or had within the last hour."""

    namespace: str
    devices: float
    """Number of devices; the promised part of shared ones."""
    since: datetime
    until: datetime | None = None
    """When the reservation was removed; None: it exists."""


@dataclass(frozen=True, slots=True)
class Preempting:
    """Pods that are evicted for a workload."""

    victims: frozenset[str]
    """Uids."""
    at: datetime
    """When they were last chosen, or waited for."""


@dataclass(frozen=True, slots=True)
class DevicePressure:
    """A shared device whose memory in use is above `PRESSURE_PERCENT`."""

    samples: int
    """Number of consecutive samples above it; 0: it is below again after a recent move."""
    sampled: str
    """Time of the last counted sample, by the node's clock."""
    tried: datetime | None = None
    """When a move from it was last tried."""


@dataclass(frozen=True, slots=True)
class QueuedCreation:
    """A workload (not a gang) whose missing pods are created by a later pass, because of the limit."""

    namespace: str
    order: tuple[int, datetime, str]
    """See `decide.queue.order.precedence`."""
    pods: int
    """Number of missing pods."""


@dataclass(frozen=True, slots=True)
class PassState:
    """State carried from pass to pass. Losing all of it (a restart) costs time, never correctness."""

    rejections: Rejections = field(default_factory=Rejections)
    write_backoffs: Mapping[str, Backoff] = field(default_factory=dict)
    """Failed writes, by the action's key."""
    pending_creates: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Workload uid, replica -> name of a pod whose creation got no response. It is retried under that name."""
    transports: Mapping[tuple[str, int], Transport] = field(default_factory=dict)
    """Workload uid, replica -> transport of the nodes that fit it, if its last pod had the other one."""
    unschedulable_since: Mapping[str, datetime] = field(default_factory=dict)
    """Pod uid -> since when kube-scheduler reports it as unschedulable, by the apiserver's clock."""
    unanswered_since: Mapping[str, datetime] = field(default_factory=dict)
    """Uid of a released pod -> since when no scheduler has responded to it, by the apiserver's clock."""
    first_generation: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Pod uid -> node of its reservation, and the generation of its telemetry in which it was first seen there."""
    seen_holding: frozenset[str] = frozenset()
    """Uids of reserved pods that an agent has reported as holding devices."""
    ended: Mapping[str, tuple[datetime, str]] = field(default_factory=dict)
    """Uid of a reserved pod that is deleted or terminated -> when that was noticed, and `observedAt` by then."""
    released_since: Mapping[str, datetime] = field(default_factory=dict)
    """Uid of a reserved pod that is deleted or terminated -> since when the agent reports that it holds nothing.

    Only a report that is later than the one in `ended` counts.
    """
    kept_since: Mapping[str, datetime] = field(default_factory=dict)
    """Uid of a deleted pod of an older template -> since when nothing uses its devices, kept for its successor."""
    without_devices: Mapping[str, str] = field(default_factory=dict)
    """Uid of a reserved pod whose container runs -> `observedAt` of the first of the consecutive reports since the
    container's start in which it holds nothing."""
    unhealthy_since: Mapping[str, datetime] = field(default_factory=dict)
    """Uid of a reserved pod -> since when fresh telemetry reports one of its devices as unhealthy."""
    templates: Mapping[str, TemplateCheck] = field(default_factory=dict)
    """Workload uid -> the check of its current generation."""
    quota_room: Mapping[str, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    """Namespace in which workloads wait for quota -> what its quotas leave, by uid of the quota and resource."""
    held_creations: frozenset[str] = frozenset()
    """Uids of gangs whose pods are not created before those of another one, which are in flight."""
    queued_creations: Mapping[str, QueuedCreation] = field(default_factory=dict)
    """By workload uid."""
    unsent_releases: Mapping[str, int] = field(default_factory=dict)
    """Namespace -> releases that the last pass decided on and dropped, because others had not ended.

    Those that the executor keeps until their lane has room are not counted.
    """
    full_creations: frozenset[str] = frozenset()
    """Namespaces in which so many creations have no response that no other one would be sent."""
    quota_tried: Mapping[str, datetime] = field(default_factory=dict)
    """Uid of a gang that waits for quota -> when a gated pod of it was last seen, which is deleted because it waits."""
    status_written: Mapping[str, datetime] = field(default_factory=dict)
    """Workload uid -> when its status was last written."""
    status_queue: Mapping[str, datetime] = field(default_factory=dict)
    """Workload uid -> since when its status differs and waits for the budget of a pass."""
    picked: Mapping[str, PickedDevices] = field(default_factory=dict)
    """By pod uid, until the stored status has the score: a status may be written much later."""
    reported: Mapping[str, Reported] = field(default_factory=dict)
    """Key of a report (`model.report_actions`) -> what was last written under it."""
    up_to_date_nodes: Mapping[str, UpToDateNode] = field(default_factory=dict)
    """By node name."""
    services_restored: Mapping[str, datetime] = field(default_factory=dict)
    """Workload uid -> when its Service was last restored."""
    device_use: Mapping[str, DeviceUse] = field(default_factory=dict)
    """Pod uid -> the devices that it has, or had within the last hour."""
    preempting: Mapping[str, Preempting] = field(default_factory=dict)
    """Uid of a workload that waits -> the pods that are evicted for it."""
    pressure: Mapping[str, Mapping[str, DevicePressure]] = field(default_factory=dict)
    """Node -> UUID of a device that runs out of memory."""
    moves: Mapping[str, datetime] = field(default_factory=dict)
    """Uid of a pod -> when it was moved, in the last hour."""
    restored: frozenset[str] = frozenset()
    """Uids of workloads whose rejections were read back from status after a restart."""
    in_flight: frozenset[str] = frozenset()
    """Keys of writes of earlier passes that have no response yet, and of writes that depend on these."""
    pods_in_flight: frozenset[str] = frozenset()
    """Uids of pods of which a reservation or a release has no response yet: it may be stored already."""
    responded: frozenset[str] = frozenset()
    """Keys that were in flight until their write got its response, since the last pass."""

    def is_backing_off(self, key: str, now: datetime) -> bool:
        """Returns True while the write with this key is in flight, or may not be retried."""
        if key in self.in_flight:
            return True
        backoff = self.write_backoffs.get(key)
        return backoff is not None and now < backoff.until

    def rejection(self, key: str) -> Backoff | None:
        """Returns the backoff of a write that the apiserver rejected; None also after a lost response."""
        backoff = self.write_backoffs.get(key)
        return backoff if backoff is not None and backoff.by == "apiserver" else None
