"""Answers the AdmissionChecks of Kueue: Ready when devices are reserved, Retry when none are available.

Kueue reserves quota for a Workload first, and admits it when all of its checks are Ready. With Retry the Workload is
evicted, which frees the quota. The check is Pending again once Kueue has stored the end of the pause: before, it would
forget the pause; while the check is Retry, it reserves no quota. A check that cannot be answered yet stays Pending.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_operator.decide.scale_up.placeholders import needs_nodes
from gpufleet_operator.model.actions import WorkloadName
from gpufleet_operator.model.kueue.objects import CheckAnswer, CheckState, KueueWorkload
from gpufleet_operator.model.objects import Pod, Workload

_DECIDED_AFTER = timedelta(seconds=2)
"""Time after the reservation of quota by which the status of the GPUWorkload reflects it."""
_PATIENCE = timedelta(seconds=30)
"""Time for which quota is held for pods that also wait for something else than devices."""
_NODES_PATIENCE = timedelta(minutes=10)
"""Time for which quota is held for a workload that an autoscaler may add nodes for."""
_FIRST_PAUSE_SECONDS = 10
_MAX_PAUSE_SECONDS = 300
_MAX_DOUBLINGS = 5
_MAX_MESSAGE = 1024


def answers(
    kueue_workloads: Iterable[KueueWorkload],
    checks: Collection[str],
    pods: Mapping[str, Pod],
    workloads: Mapping[str, Workload],
    reserved: Mapping[str, Collection[str]],
    *,
    now: datetime,
    scale_up: bool = False,
) -> Iterator[CheckAnswer]:
    """Yields the answers to give now.

    Args:
        kueue_workloads: The Workloads of Kueue.
        checks: Names of the AdmissionChecks to answer.
        pods: Pods with the workload label, by uid.
        workloads: GPUWorkloads by uid.
        reserved: Uid of a pod -> nodes that store a reservation for it.
        now: By the apiserver's clock.
        scale_up: Whether there are placeholder pods, for which an autoscaler may add nodes.
    """
    for one in unanswered(kueue_workloads, checks):
        own = tuple(sorted(one.checks.keys() & checks))
        retries = max(one.checks[name].retries for name in own)
        if one.paused:
            message = next(one.checks[name].message for name in own if one.checks[name].state is CheckState.RETRY)
            yield CheckAnswer(one, own, CheckState.PENDING, message[:_MAX_MESSAGE], retries=retries)
            continue
        found = [pods[uid] for uid in one.pods if uid in pods]
        waiting = [pod for pod in found if pod.gates and not pod.deleting]
        missing = [pod for pod in waiting if not reserved.get(pod.uid)]
        released = any(not pod.gates for pod in found)
        if not missing and (waiting or released or not one.pods):
            yield CheckAnswer(one, own, CheckState.READY, _ready(waiting, reserved, released=released)[:_MAX_MESSAGE])
            continue
        workload = workloads.get(missing[0].workload_uid) if missing else None
        retry = _retry(one, workload, now, scale_up=scale_up)
        if retry is not None:
            about = WorkloadName(workload.namespace, workload.name, workload.uid) if workload is not None else None
            pause = _pause_seconds(retries)
            yield CheckAnswer(one, own, CheckState.RETRY, retry[:_MAX_MESSAGE], pause, retries + 1, about)


def unanswered(kueue_workloads: Iterable[KueueWorkload], checks: Collection[str]) -> Iterator[KueueWorkload]:
    """Yields the Workloads that hold quota and wait for an answer, and those whose Retry can be reset."""
    for one in kueue_workloads:
        if one.reserved_since is None and not one.paused:
            continue
        state = CheckState.RETRY if one.paused else CheckState.PENDING
        if any(status.state is state for name, status in one.checks.items() if name in checks):
            yield one


def _retry(one: KueueWorkload, workload: Workload | None, now: datetime, *, scale_up: bool) -> str | None:
    """Returns why the quota is returned; None: it is kept, because devices may be reserved soon."""
    since = timedelta(0) if one.reserved_since is None else now - one.reserved_since
    condition = _placed(workload)
    no_devices = condition is not None and condition.reason == "NoDevicesAvailable"
    patience = _DECIDED_AFTER if no_devices else _PATIENCE
    if scale_up and workload is not None and needs_nodes(workload) is not None:
        patience = _NODES_PATIENCE
    if since < patience:
        return None
    if condition is None:
        return "No pod of a GPUWorkload waits for devices."
    return condition.message or condition.reason


def _ready(waiting: Collection[Pod], reserved: Mapping[str, Collection[str]], *, released: bool) -> str:
    if not waiting:
        if released:
            return "The pods are released."
        return "The workload does not consist of pods: it gets devices once its pods exist."
    nodes = sorted({node for pod in waiting for node in reserved[pod.uid]})
    number = "1 pod" if len(waiting) == 1 else f"{len(waiting)} pods"
    return f"Devices of {number} are reserved on {', '.join(nodes)}."


def _placed(workload: Workload | None) -> Condition | None:
    """Returns the condition Placed while it is not True."""
    conditions = workload.status.conditions if workload is not None and workload.status is not None else ()
    found = next((c for c in conditions if c.type == "Placed"), None)
    return found if found is not None and found.status is not ConditionStatus.TRUE else None


def _pause_seconds(retries: int) -> int:
    pause: int = _FIRST_PAUSE_SECONDS * 2 ** min(retries, _MAX_DOUBLINGS)
    return min(_MAX_PAUSE_SECONDS, pause)
