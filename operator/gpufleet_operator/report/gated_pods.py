"""Why a pod waits: an event on the pod for people, and the annotation `gpufleet.dev/waiting-for` for tools.

The annotation is written when the reason changes. An event is recorded with it, again when more than numbers in the
message changes, and again before the apiserver deletes it. A pod that is released within two seconds gets neither.

Kubernetes writes no condition on a released pod whose ResourceClaim is missing, so it gets an event as well. It gets no
annotation, which would have to be removed by one more write when its claim exists.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain

from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import create_key, release_key
from gpufleet_operator.model.claims.claim_actions import claim_key
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.replica import (
    WITHOUT_USABLE_POD,
    RemovalMethod,
    Replica,
    UnplacedPod,
    UnplacedReason,
    WaitReason,
    WorkloadReplicas,
)
from gpufleet_operator.model.report_actions import ExplainPod, explain_key
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Reported
from gpufleet_operator.placement.model import Diagnosis
from gpufleet_operator.pods.release import explain

DELAY = timedelta(seconds=2)
"""How long a pod is gated before that is explained."""
_NOTE_INTERVAL = timedelta(minutes=2)
"""Shortest interval between two events of a pod with the same reason and different notes."""
CANNOT_START = "CannotStart"
"""Reason of the event on a pod without an owner that is rejected."""
_REPEAT_INTERVAL = timedelta(minutes=30)
"""Interval at which an event is repeated: the apiserver deletes events after an hour."""


class WaitingFor(StrEnum):
    """Value of the annotation. The reason of the event is `WaitingFor` and this value."""

    DEVICES = "Devices"
    GANG = "Gang"
    OTHER_GATES = "OtherSchedulingGates"
    PREDECESSOR = "Predecessor"
    """The devices of the pod that it replaces are kept for it."""
    RELEASE = "Release"
    VALID_TEMPLATE = "ValidTemplate"
    WORKLOAD = "GPUWorkload"
    VALID_POD = "ValidPod"
    PODS = "Pods"
    RESUME = "Resume"
    CLAIM = "ResourceClaim"


_OF_THE_REPLICA = {
    WaitReason.RESUME: WaitingFor.RESUME,
    WaitReason.OTHER_GATES: WaitingFor.OTHER_GATES,
    WaitReason.PREDECESSOR: WaitingFor.PREDECESSOR,
    WaitReason.CLAIM: WaitingFor.CLAIM,
}
"""Reasons whose message is that of the replica."""

_EXPECTED = (WaitingFor.OTHER_GATES, WaitingFor.PREDECESSOR)
"""Reasons that are not a problem: the wait usually ends by itself."""


@dataclass(frozen=True, slots=True)
class _Wait:
    reason: WaitingFor
    message: str
    problem: bool = True
    """False: the pod is about to be deleted."""


@dataclass(frozen=True, slots=True)
class GateContext:
    """The results of this pass that explain why pods are gated."""

    replicas: Mapping[str, tuple[WorkloadReplicas, Replica]]
    """By the UID of their pod."""
    ledger: Ledger
    """After this pass."""
    unplaced: Mapping[str, Diagnosis] = field(default_factory=dict)
    """By workload uid."""
    without_replica: Mapping[str, UnplacedPod] = field(default_factory=dict)
    """Pods of other owners that are not replicas of their workload, by UID."""
    releases: frozenset[str] = frozenset()
    """Uids of the pods that this pass releases."""


def gated_pods(snapshot: Snapshot) -> Sequence[Pod]:
    """Returns the gated pods, the oldest first."""
    return sorted(_gated(snapshot), key=lambda p: p.created)


def pods_without_claim(snapshot: Snapshot) -> Sequence[Pod]:
    """Returns the released pods that kube-scheduler cannot bind, because their claim is missing, the oldest first."""
    return sorted(_without_claim(snapshot), key=lambda p: p.created)


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains pods, one after the other."""

    snapshot: Snapshot
    state: PassState
    found: GateContext

    def gated(self, pod: Pod) -> ExplainPod | None:
        """Returns the explanation to record of a gated pod; None: there is none, or it is recorded."""
        snapshot, found = self.snapshot, self.found
        if pod.uid in found.releases or snapshot.now - pod.created < DELAY:
            return None
        wait = _wait(snapshot, self.state, found, pod, found.replicas.get(pod.uid))
        if wait is None:
            return None
        known = pod.waiting_for == wait.reason
        action = ExplainPod(
            pod_uid=pod.uid,
            namespace=pod.namespace,
            name=pod.name,
            reason=f"WaitingFor{wait.reason}",
            note=wait.message,
            warning=wait.problem and wait.reason not in _EXPECTED,
            patch=() if known else explain(pod, wait.reason),
        )
        due = not known or _is_due(snapshot, self.state.reported.get(action.key), action)
        return action if due else None

    def without_claim(self, pod: Pod) -> ExplainPod | None:
        """Returns the explanation to record of a pod whose claim is missing; None: there is none, or it is recorded."""
        member = self.found.replicas.get(pod.uid)
        if member is None or pod.uid in self.found.releases:
            return None
        wait = _wait_for_claim(self.state, self.found, *member)
        if wait is None:
            return None
        action = ExplainPod(
            pod.uid, pod.namespace, pod.name, f"WaitingFor{wait.reason}", note=wait.message, warning=True
        )
        reported = self.state.reported.get(action.key)
        return action if reported is None or _is_due(self.snapshot, reported, action) else None


def unreplaced(state: PassState, now: datetime, assessed: WorkloadReplicas) -> Sequence[ExplainPod]:
    """Returns the explanations to record of pods without an owner that cannot start: they stay."""
    found: list[ExplainPod] = []
    for removal in assessed.removals:
        pod = removal.pod
        if removal.method is not RemovalMethod.NONE or pod.owner is not None:
            continue
        note = f"{removal.message}; no controller replaces the pod: delete it and create it again"
        action = ExplainPod(pod.uid, pod.namespace, pod.name, CANNOT_START, note, warning=True)
        reported = state.reported.get(action.key)
        # While it was gated, something else was reported of it.
        known = reported is not None and reported.note == action.note_without_numbers
        if not known or (reported is not None and now - reported.at >= _REPEAT_INTERVAL):
            found.append(action)
    return found


def explained(snapshot: Snapshot) -> dict[str, Reported]:
    """Returns the explanations of gated pods; those of an earlier process as if they were recorded now."""
    reported = snapshot.previous_state.reported
    keys = [explain_key(pod.uid) for pod in _gated(snapshot) if pod.waiting_for]
    known = (explain_key(pod.uid) for pod in snapshot.pods.values() if not pod.gates and pod.owner is None)
    keys += [key for key in known if key in reported]
    keys += [key for pod in _without_claim(snapshot) if (key := explain_key(pod.uid)) in reported]
    return {key: reported.get(key, Reported(snapshot.now)) for key in keys}


def due_times(snapshot: Snapshot, state: PassState) -> Iterator[tuple[str, datetime]]:
    """Yields the uids of pods that wait, and when they have waited long enough to be explained, or explained again."""
    for pod in _gated(snapshot):
        yield pod.uid, pod.created + DELAY
    for pod in chain(_gated(snapshot), _without_claim(snapshot)):
        reported = state.reported.get(explain_key(pod.uid))
        if reported is not None:
            yield pod.uid, reported.at + _NOTE_INTERVAL
            yield pod.uid, reported.at + _REPEAT_INTERVAL


def _gated(snapshot: Snapshot) -> Iterable[Pod]:
    return (pod for pod in snapshot.pods.values() if pod.gates and not pod.deleting and not pod.terminal)


def _without_claim(snapshot: Snapshot) -> Iterable[Pod]:
    """Returns the released pods that kube-scheduler cannot bind, because their claim is missing."""
    if not snapshot.limits.claims:
        return ()
    released = (p for p in snapshot.pods.values() if p.device_claim is not None and not p.gates and p.node is None)
    return (p for p in released if not p.deleting and not p.terminal and snapshot.claim_of(p) is None)


def _is_due(snapshot: Snapshot, reported: Reported | None, action: ExplainPod) -> bool:
    if reported is None:
        return False
    changed = reported.note not in ("", action.note_without_numbers)
    return snapshot.now - reported.at >= (_NOTE_INTERVAL if changed else _REPEAT_INTERVAL)


def _wait(
    snapshot: Snapshot, state: PassState, found: GateContext, pod: Pod, member: tuple[WorkloadReplicas, Replica] | None
) -> _Wait | None:
    """Returns what the pod waits for; None: nothing, or it is about to be deleted."""
    if member is None:
        return _unplaced(found, pod) or _without_replica(snapshot, pod)
    assessed, replica = member
    if any(removal.pod.uid == pod.uid for removal in assessed.removals):
        return None
    if replica.wait_reason is WaitReason.VALID_TEMPLATE:
        return _invalid(assessed.workload.name, assessed.template_errors)
    if replica.wait_reason in _OF_THE_REPLICA:
        return _Wait(_OF_THE_REPLICA[replica.wait_reason], replica.message)
    reserved = pod.uid in found.ledger.active
    failure = state.write_backoffs.get(release_key(pod.uid)) if reserved else None
    if failure is not None:
        return _Wait(WaitingFor.RELEASE, f"{failure.by}: {failure.message}")
    missing = next((r for r in assessed.replicas if r.wait_reason is WaitReason.OWNER), None)
    if missing is not None:
        return _Wait(WaitingFor.PODS, missing.message)
    others = [r for r in assessed.replicas if r.wait_reason in WITHOUT_USABLE_POD]
    if assessed.spec.placement.gang and others:
        return _wait_for_others(state, assessed, others)
    if reserved:
        return None
    diagnosis = found.unplaced.get(assessed.workload.uid)
    message = replica.message or "no devices are picked yet"
    if diagnosis is not None:
        message = f"{diagnosis.message}{_held_by_siblings(assessed, pod)}"
    return _Wait(WaitingFor.DEVICES, message)


def _wait_for_others(state: PassState, assessed: WorkloadReplicas, others: Sequence[Replica]) -> _Wait | None:
    """Returns why a gang waits; None: the creation of its pods has no response yet.

    An explanation changes the pod: its release, which may be decided in the next pass, would be rejected.
    """
    if create_key(assessed.workload.uid) in state.in_flight:
        return None
    message = f"{len(others)} of {len(assessed.replicas)} pods of the gang are missing or cannot be placed yet"
    first = others[0]
    return _Wait(WaitingFor.GANG, f"{message}: replica {first.index}: {first.message or first.wait_reason}")


def _wait_for_claim(state: PassState, found: GateContext, assessed: WorkloadReplicas, replica: Replica) -> _Wait | None:
    """Returns why a released pod has no claim; None: it is created now."""
    if replica.pod is None:
        return None
    if replica.wait_reason is WaitReason.DEVICES:
        diagnosis = found.unplaced.get(assessed.workload.uid)
        return _Wait(WaitingFor.DEVICES, f"{replica.message}; {diagnosis.message}" if diagnosis else replica.message)
    rejected = state.write_backoffs.get(claim_key(replica.pod.uid))
    return _Wait(WaitingFor.CLAIM, replica.message) if rejected is not None else None


def _unplaced(found: GateContext, pod: Pod) -> _Wait | None:
    """Returns why a pod with another owner is not a replica of its workload."""
    match = found.without_replica.get(pod.uid)
    if match is None:
        return None
    waiting_for = WaitingFor.VALID_POD if match.reason is UnplacedReason.INVALID_POD else WaitingFor.GANG
    return _Wait(waiting_for, match.message)


def _held_by_siblings(assessed: WorkloadReplicas, pod: Pod) -> str:
    """Returns a hint if pods of the same owner hold devices: in a rolling update with maxSurge both wait."""
    if pod.owner is None or pod.owner.kind != "ReplicaSet":
        return ""
    holding = sum(
        r.pod is not None
        and not r.pod.gates
        and r.pod.owner is not None
        and r.pod.owner.kind == "ReplicaSet"
        and r.pod.owner.uid != pod.owner.uid
        for r in assessed.replicas
    )
    if not holding:
        return ""
    holders = "1 pod of an earlier ReplicaSet holds" if holding == 1 else f"{holding} pods of earlier ReplicaSets hold"
    return f" {holders} devices: a rolling update without free GPUs needs maxSurge 0"


def _without_replica(snapshot: Snapshot, pod: Pod) -> _Wait | None:
    workload = snapshot.workloads.get(pod.workload_uid)
    if not pod.workload_uid:
        workload = next((w for w in snapshot.workloads.values() if _names(pod, w)), None)
        if workload is not None and workload.model is not None and not workload.model.spec.adopts:
            message = f"GPUWorkload {workload.name} has a template, so it places only the pods that it creates"
            return _Wait(WaitingFor.WORKLOAD, message)
        if workload is None:
            return _Wait(WaitingFor.WORKLOAD, f"GPUWorkload {pod.workload_label} does not exist in this namespace")
    if workload is None:
        message = "its GPUWorkload was deleted, so the garbage collector deletes the pod"
        return _Wait(WaitingFor.WORKLOAD, message, problem=False)
    if workload.namespace != pod.namespace:
        return _Wait(WaitingFor.WORKLOAD, "no GPUWorkload controls the pod")
    if workload.deleting or workload.model is not None:
        return None
    return _invalid(workload.name, [workload.invalid])


def _invalid(workload: str, errors: Iterable[str]) -> _Wait:
    return _Wait(WaitingFor.VALID_TEMPLATE, f"GPUWorkload {workload} is invalid: {'; '.join(errors)}")


def _names(pod: Pod, workload: Workload) -> bool:
    return (workload.namespace, workload.name) == (pod.namespace, pod.workload_label)
