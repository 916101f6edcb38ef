"""Who holds which devices: the reservations of all nodes, checked against the pods that live and what agents report.

The ledger is the union of `spec.assignments` over all GPUTelemetry objects and nothing else, so it is complete
after a restart. A reservation whose pod is gone isn't simply dropped: a container may outlive its pod object
(forced deletion), so its devices stay taken until the agent's report no longer shows them with that pod, and for some
seconds more unless the kubelet has said that the pod is over.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gpufleet_operator.ledger.conflicts import Occupancy
from gpufleet_operator.ledger.device_usage import held_by
from gpufleet_operator.ledger.verify import rejected_by_kubelet
from gpufleet_operator.model.objects import Pod, PodDeletion, Reservation
from gpufleet_operator.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Ledger:
    """The reservations, by what is to become of them."""

    live: Mapping[str, Reservation] = field(default_factory=dict)
    """By pod uid: the pod exists and may use the devices."""
    terminating: tuple[Reservation, ...] = ()
    """The pod is gone or over, but the node may not have let go of the devices yet."""
    free: tuple[Reservation, ...] = ()
    """To be removed."""
    conflicted: frozenset[str] = frozenset()
    """Uids of released pods whose devices an older reservation has, too, and one of them has them as a whole.

    Never the case unless others write here.
    """


def read_ledger(snapshot: Snapshot) -> Ledger:
    """Sort all reservations of the snapshot."""
    live: dict[str, Reservation] = {}
    terminating: list[Reservation] = []
    free: list[Reservation] = []
    conflicted: set[str] = set()
    claims = Occupancy(device_memory_mib(snapshot))
    for entry in sorted(reservations(snapshot), key=_seniority):
        uid = entry.assignment.pod_uid
        pod = snapshot.pods.get(uid)
        if pod is None or pod.terminal:
            if devices_are_free(snapshot, entry, pod):
                free.append(entry)
            else:
                terminating.append(entry)
                claims.add(entry.node, entry.assignment)
        elif uid in live or (pod.place is not None and pod.place != entry.node):
            # A roll-back that didn't happen: the pod can't run on this node (or has an older reservation).
            free.append(entry)
        elif pod.gates and not claims.fits(entry.node, entry.assignment):
            free.append(entry)
        else:
            live[uid] = entry
            if claims.clashes(entry.node, entry.assignment):
                conflicted.add(uid)
            claims.add(entry.node, entry.assignment)
    return Ledger(live, tuple(terminating), tuple(free), frozenset(conflicted))


def reservations(snapshot: Snapshot) -> Iterator[Reservation]:
    """All reservations as stored."""
    for name, telemetry in snapshot.telemetry.items():
        for assignment in telemetry.assignments:
            yield Reservation(name, assignment)


def device_memory_mib(snapshot: Snapshot) -> dict[tuple[str, str], int]:
    """Memory of the devices of all nodes in MiB, as far as it is reported."""
    return {
        (name, device.uuid): device.memory_total_mib
        for name, telemetry in snapshot.telemetry.items()
        for device in (telemetry.status.devices if telemetry.status else ())
        if device.memory_total_mib is not None
    }


def devices_are_free(snapshot: Snapshot, entry: Reservation, pod: Pod | None) -> bool:
    """True when nothing on the node can still use the devices of a pod that is gone (`pod` None) or over."""
    uid = entry.assignment.pod_uid
    if entry.node not in snapshot.nodes:
        return True
    deletion = snapshot.deleted_pods.get(uid)
    if deletion is PodDeletion.NEVER_BOUND or (pod is not None and rejected_by_kubelet(pod)):
        return True  # The pod never was on the node, or the kubelet never started it.
    if snapshot.stale_reason(entry.node) is not None:
        return False
    status = snapshot.telemetry[entry.node].status
    if status is None or held_by(status, entry.assignment):
        return False
    # The report may be older than the pod's last moments: a pod that was bound, started and force-deleted between
    # two reports was in neither, and an agent that is cut off tells nothing of either. `let_go` is set by a report
    # that is younger than our knowledge of its end.
    noticed, _ = snapshot.memory.gone.get(uid, (snapshot.now, ""))
    told = snapshot.memory.let_go.get(uid)
    if pod is not None or deletion is PodDeletion.OVER:
        # The kubelet itself has said that the containers are over. A report that has dropped it may have come earlier.
        dropped = told is not None or uid in snapshot.memory.held
        return dropped or snapshot.now - noticed >= snapshot.limits.parting_delay
    # Deleted by force, or nobody here knows how: the kubelet drops such a pod from its list when it hears of that, and
    # kills the containers in the seconds after.
    return told is not None and snapshot.now - max(told, noticed) >= snapshot.limits.parting_delay


def _seniority(entry: Reservation) -> tuple[str, str, str]:
    return (entry.assignment.decided_at, entry.node, entry.assignment.pod_uid)
