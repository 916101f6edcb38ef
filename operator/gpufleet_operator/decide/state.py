"""Our own memory from pass to pass: since when something stands, what was seen before, what may not be tried yet."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from gpufleet_common import timestamps
from gpufleet_operator.fleet.device_health import reported_unhealthy_devices
from gpufleet_operator.ledger.device_usage import held_by
from gpufleet_operator.ledger.ledger import reservations
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Backoff, PassState, RefusalKey

REFUSAL_BASE_SECONDS = 2.0
REFUSAL_CAP_SECONDS = 120.0
WRITE_BASE_SECONDS = 0.5
WRITE_CAP_SECONDS = 60.0

_FORGET = timedelta(minutes=10)
"""A setback that ended this long ago no longer counts as the first of a row."""


def observe(snapshot: Snapshot) -> PassState:
    """What this snapshot adds to memory, and what it lets us forget. Called first in every pass."""
    memory = snapshot.memory
    reserved = {e.assignment.pod_uid: e for e in reservations(snapshot)}
    covered, held, gone, let_go, bare = {}, set(), {}, {}, {}
    for uid, entry in reserved.items():
        telemetry = snapshot.telemetry[entry.node]
        covered[uid] = memory.covered_from.get(uid, telemetry.generation)
        status, pod = telemetry.status, snapshot.pods.get(uid)
        report = status.observed_at if status else ""
        holds = status is not None and bool(held_by(status, entry.assignment))
        if pod is None or pod.terminal:
            gone[uid] = memory.gone.get(uid, (snapshot.now, report))
        if holds or uid in memory.held:
            held.add(uid)
        # Only a report from after its end tells that it is over: while it lived, one report may have missed it (an
        # agent that has just started), and that report may still be the latest.
        later = uid in gone and report != gone[uid][1]
        if status is not None and not holds and later:
            let_go[uid] = memory.let_go.get(uid, snapshot.now)
        if pod is not None and not holds and _runs(pod, entry.assignment.container, before=report):
            bare[uid] = memory.bare.get(uid, report)
    return replace(
        memory,
        refusals=_refusals(snapshot),
        setbacks=_lasting(memory.setbacks, snapshot.now),
        refused_since={
            uid: memory.refused_since.get(uid, snapshot.now)
            for uid, pod in snapshot.pods.items()
            if refused_by_scheduler(pod)
        },
        refused=memory.refused & snapshot.pods.keys(),
        creating={key: name for key, name in memory.creating.items() if key[0] in snapshot.workloads},
        covered_from=covered,
        held=frozenset(held),
        gone=gone,
        let_go=let_go,
        bare=bare,
        degraded_since={
            uid: memory.degraded_since.get(uid, snapshot.now)
            for uid, entry in reserved.items()
            if snapshot.stale_reason(entry.node) is None
            and reported_unhealthy_devices(snapshot.telemetry[entry.node], entry.assignment)
        },
        status_written={k: v for k, v in memory.status_written.items() if k in snapshot.workloads},
        known=frozenset(snapshot.workloads),
    )


def _runs(pod: Pod, name: str, *, before: str) -> bool:
    """True when the container has been running before that report, by the node's own clock."""
    container = pod.container(name)
    started = container.started_at if container and container.running and not pod.terminal else None
    return started is not None and before != "" and timestamps.parse(before) >= started


def refused_by_scheduler(pod: Pod) -> bool:
    """Released, not bound, and kube-scheduler says Unschedulable without making room by preemption."""
    released = not pod.gates and pod.node is None and not pod.terminal and not pod.deleting
    return released and pod.unschedulable is not None and not pod.nominated


def refuse(memory: PassState, key: RefusalKey, pod_uid: str, now: datetime, *, message: str, by: str) -> PassState:
    """Set a node aside for one replica, longer with each pod that it refuses."""
    if pod_uid in memory.refused:
        return memory  # counted in an earlier pass; its deletion hasn't come through yet
    setback = Backoff.after(
        memory.refusals.get(key), now, base=REFUSAL_BASE_SECONDS, cap=REFUSAL_CAP_SECONDS, message=message, by=by
    )
    return replace(memory, refusals={**memory.refusals, key: setback}, refused=memory.refused | {pod_uid})


def forgive(memory: PassState, workload_uid: str, replica: int) -> PassState:
    """The replica is confirmed: its refusals no longer count."""
    kept = {key: s for key, s in memory.refusals.items() if key[:2] != (workload_uid, replica)}
    return memory if len(kept) == len(memory.refusals) else replace(memory, refusals=kept)


def record(memory: PassState, results: Iterable[tuple[str, str | None, str]], now: datetime) -> PassState:
    """Note which writes failed (key, message, who says so) and which went through (key, None, "").

    Several writes may share a key; one failure among them is a failure of the key, counted once.
    """
    told = list(results)
    failures = {key: (message, by) for key, message, by in told if message is not None}
    done = {key for key, _, _ in told} - failures.keys()
    setbacks = {key: s for key, s in memory.setbacks.items() if key not in done}
    for key, (message, by) in failures.items():
        setbacks[key] = Backoff.after(
            setbacks.get(key), now, base=WRITE_BASE_SECONDS, cap=WRITE_CAP_SECONDS, message=message, by=by
        )
    return replace(memory, setbacks=setbacks)


def answered(memory: PassState, replicas: Iterable[tuple[str, int]]) -> PassState:
    """The apiserver has answered for these pods' creation: their next try is a new pod with a new name."""
    creating = dict(memory.creating)
    for key in replicas:
        creating.pop(key, None)
    return replace(memory, creating=creating)


def due(memory: PassState, now: datetime) -> datetime | None:
    """When the next setback ends; nothing in the cluster will tell."""
    ends = [s.until for group in (memory.refusals, memory.setbacks) for s in group.values() if s.until > now]
    return min(ends, default=None)


def _lasting(setbacks: Mapping[str, Backoff], now: datetime) -> dict[str, Backoff]:
    return {key: s for key, s in setbacks.items() if now < s.until + _FORGET}


def _refusals(snapshot: Snapshot) -> dict[RefusalKey, Backoff]:
    memory = snapshot.memory
    refusals = {key: s for key, s in memory.refusals.items() if key[0] in snapshot.workloads}
    refusals = {key: s for key, s in refusals.items() if snapshot.now < s.until + _FORGET}
    for uid, workload in snapshot.workloads.items():
        status = workload.status
        if uid in memory.known or status is None or status.explanation is None:
            continue
        # After a restart: the refusals that status still tells, so that we don't run into the same wall again.
        for told in status.explanation.refusals:
            key = (uid, told.replica, told.node)
            at = min(timestamps.parse(told.time), snapshot.now)
            until = at + timedelta(seconds=REFUSAL_BASE_SECONDS)
            refusals.setdefault(key, Backoff(1, at, until, told.message, told.by))
    return refusals
