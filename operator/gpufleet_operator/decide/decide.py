"""One pass: `decide(snapshot) -> actions`. Pure; read it from top to bottom.

1. observe: what stands since when (memory);
2. ledger: who holds what, and which reservations have lost their pod;
3. replicas: where each replica stands, and which pods must go;
4. plan: devices for what waits;
5. actions: make, delete, reserve, release, report.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from gpufleet_operator.decide import state
from gpufleet_operator.decide.plan import Plan, plan
from gpufleet_operator.decide.replicas import REFUSED_BY, grace, stand
from gpufleet_operator.decide.template_check import judge
from gpufleet_operator.ledger import ledger as ledgers
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import Actions, CreatePod, DeletePod, ReleasePod, Reserve, WriteStatus, create_key
from gpufleet_operator.model.objects import Pod, Reservation, Workload
from gpufleet_operator.model.replica import Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, TemplateCheck
from gpufleet_operator.placement.model import Terms
from gpufleet_operator.pods import build, release
from gpufleet_operator.status import build as report
from gpufleet_operator.status.context import StatusContext


def decide(snapshot: Snapshot) -> Actions:
    """Everything that should be done now. Calling it again after it was done asks for nothing."""
    snapshot = snapshot.with_memory(state.observe(snapshot))
    ledger = ledgers.read_ledger(snapshot)
    verdicts = _judge(snapshot)
    standings = _standings(snapshot, ledger, verdicts)
    planned = plan(snapshot, ledger, standings)
    memory = replace(_memory(snapshot, standings), verdicts=verdicts)
    blocked = Blocked(snapshot)
    reserves = tuple(r for r in _reserves(snapshot, planned.ledger) if blocked.passes(r.key))
    unwritten = _unwritten(snapshot, planned.ledger, reserves)
    creates = tuple(c for s in standings for c in _creates(snapshot, s) if blocked.passes(c.key))
    memory = replace(memory, creating={**memory.creating, **{(c.workload_uid, c.replica): c.name for c in creates}})
    deletes = tuple(d for s in standings for d in _deletes(s) if blocked.passes(d.key))
    releases = tuple(r for s in standings for r in _releases(s, planned, reserves, unwritten) if blocked.passes(r.key))
    problems = {uid: verdict.problems for uid, verdict in verdicts.items()}
    statuses, memory = _statuses(replace(snapshot, memory=memory), problems, standings, planned, blocked)
    return Actions(
        creates=creates,
        deletes=deletes,
        reserves=reserves,
        releases=releases,
        statuses=statuses,
        memory=memory,
        due=_due(snapshot, memory),
        unplaced=planned.unplaced,
        gated=_gated(snapshot, standings),
        inconsistencies=planned.inconsistencies,
        unexpected_errors={
            snapshot.workloads[uid].full_name: verdict.unexpected_error
            for uid, verdict in verdicts.items()
            if verdict.unexpected_error and snapshot.memory.verdicts.get(uid) is not verdict
        },
    )


class Blocked:
    """Which writes failed lately and have to wait."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._memory, self._now = snapshot.memory, snapshot.now

    def passes(self, key: str) -> bool:
        """True when the action may be tried."""
        return not self._memory.blocked(key, self._now)


def _judge(snapshot: Snapshot) -> dict[str, TemplateCheck]:
    """By uid: what is thought of each workload that parses. Kept for as long as its generation stands."""
    verdicts: dict[str, TemplateCheck] = {}
    for uid, workload in snapshot.workloads.items():
        if workload.deleting or workload.model is None:
            continue
        known = snapshot.memory.verdicts.get(uid)
        if known is None or known.generation != workload.generation:
            known = judge(workload, workload.model, snapshot.limits.resources)
        verdicts[uid] = known
    return verdicts


def _standings(snapshot: Snapshot, ledger: Ledger, verdicts: Mapping[str, TemplateCheck]) -> list[WorkloadReplicas]:
    """Where the workloads without problems stand.

    An owner is in its own namespace: a pod elsewhere that names the workload's uid is a stranger, forged or mistaken,
    and garbage collection treats it as such.
    """
    pods: dict[tuple[str, str], list[Pod]] = {}
    for pod in snapshot.pods.values():
        pods.setdefault((pod.namespace, pod.workload_uid), []).append(pod)
    standings: list[WorkloadReplicas] = []
    for uid, verdict in verdicts.items():
        workload = snapshot.workloads[uid]
        if workload.model is not None and not verdict.problems:
            mine = pods.get((workload.namespace, uid), ())
            standings.append(stand(workload, workload.model.spec, mine, snapshot, ledger))
    return standings


def _memory(snapshot: Snapshot, standings: Iterable[WorkloadReplicas]) -> PassState:
    """Set nodes aside for the replicas that they refused; forget that for replicas that are confirmed."""
    memory = snapshot.memory
    for standing in standings:
        uid = standing.workload.uid
        for removal in standing.removals:
            by = REFUSED_BY.get(removal.fault)
            if by is None or removal.node is None:
                continue
            key = (uid, removal.replica, removal.node)
            memory = state.refuse(memory, key, removal.pod.uid, snapshot.now, message=removal.message, by=by)
        for replica in standing.replicas:
            if replica.state == "Confirmed":
                memory = state.forgive(memory, uid, replica.index)
    return memory


def _creates(snapshot: Snapshot, standing: WorkloadReplicas) -> Iterable[CreatePod]:
    workload = standing.workload
    for replica in standing.replicas:
        if replica.wait is WaitReason.POD:
            name = snapshot.memory.creating.get((workload.uid, replica.index)) or build.pod_name(
                workload.name, replica.index, f"{snapshot.name_seed}/{workload.uid}"
            )
            body = build.build(workload, standing.spec, replica.index, name, snapshot.limits.resources)
            yield CreatePod(workload.uid, workload.namespace, name, replica.index, body)


def _deletes(standing: WorkloadReplicas) -> Iterable[DeletePod]:
    for removal in standing.removals:
        pod, workload = removal.pod, standing.workload
        yield DeletePod(
            workload_uid=workload.uid,
            workload=workload.name,
            namespace=pod.namespace,
            name=pod.name,
            uid=pod.uid,
            resource_version=pod.resource_version,
            fault=removal.fault,
            message=removal.message,
        )


def _reserves(snapshot: Snapshot, ledger: Ledger) -> Iterable[Reserve]:
    """One write per node whose list is to change."""
    wanted: dict[str, dict[str, Reservation]] = {name: {} for name in snapshot.telemetry}
    for entry in (*ledger.live.values(), *ledger.terminating):
        wanted.setdefault(entry.node, {})[entry.assignment.pod_uid] = entry
    for name, telemetry in snapshot.telemetry.items():
        stored = {a.pod_uid: a for a in telemetry.assignments}
        target = {uid: e.assignment for uid, e in wanted[name].items()}
        if telemetry.deleting or target == stored:
            continue
        kept = [a for uid, a in stored.items() if target.get(uid) == a]
        added = [a for uid, a in target.items() if stored.get(uid) != a]
        yield Reserve(
            node=name,
            uid=telemetry.uid,
            generation=telemetry.generation,
            assignments=(*kept, *added),
            added=tuple(a.pod_uid for a in added),
            removed=tuple(uid for uid in stored if uid not in target),
        )


def _unwritten(snapshot: Snapshot, ledger: Ledger, reserves: Sequence[Reserve]) -> frozenset[str]:
    """Pods whose reservation is neither stored nor about to be (its node's write has to wait)."""
    coming = {(r.node, uid) for r in reserves for uid in r.added}
    stored = {(name, a.pod_uid): a for name, t in snapshot.telemetry.items() for a in t.assignments}
    return frozenset(
        uid
        for uid, e in ledger.live.items()
        if (e.node, uid) not in coming and stored.get((e.node, uid)) != e.assignment
    )


def _releases(
    standing: WorkloadReplicas, planned: Plan, reserves: Sequence[Reserve], unwritten: frozenset[str]
) -> Iterable[ReleasePod]:
    """Let go the pods that have their devices; a gang all together or not at all."""
    ready: list[tuple[Pod, Reservation]] = []
    for replica in standing.replicas:
        entry = planned.ledger.live.get(replica.pod.uid) if replica.pod else None
        if replica.pod and replica.gated and entry and replica.wait not in (WaitReason.POD, WaitReason.GATES):
            ready.append((replica.pod, entry))
    nodes = {r.node for r in reserves}
    gang = standing.spec.placement.gang
    if gang and any(pod.uid in unwritten for pod, _ in ready):
        return
    together = frozenset(e.node for _, e in ready if e.node in nodes)
    for pod, entry in ready:
        if pod.uid in unwritten:
            continue
        yield ReleasePod(
            workload_uid=standing.workload.uid,
            pod_uid=pod.uid,
            namespace=pod.namespace,
            name=pod.name,
            node=entry.node,
            patch=release.release(pod, entry.node, entry.assignment),
            after=together if gang else together & {entry.node},
        )


def _statuses(
    snapshot: Snapshot,
    problems: Mapping[str, tuple[str, ...]],
    standings: Iterable[WorkloadReplicas],
    planned: Plan,
    blocked: Blocked,
) -> tuple[tuple[WriteStatus, ...], PassState]:
    """Statuses that differ from what is stored, and the memory of having written them."""
    by_uid = {s.workload.uid: s for s in standings}
    picked: dict[str, dict[int, Terms]] = {}
    for (uid, index), pick in planned.picked.items():
        picked.setdefault(uid, {})[index] = pick.terms
    writes: list[WriteStatus] = []
    for uid, workload in snapshot.workloads.items():
        if workload.deleting:
            continue
        outlook = StatusContext(
            workload=workload,
            standing=by_uid.get(uid),
            problems=problems.get(uid, ()),
            refused_create=_create_trouble(snapshot, workload),
            entries=planned.ledger.live,
            picked=picked.get(uid, {}),
            diagnosis=planned.unplaced.get(uid),
        )
        write = report.write(snapshot, outlook)
        if write is not None and blocked.passes(write.key):
            writes.append(write)
    written = {w.workload_uid: snapshot.now for w in writes}
    return tuple(writes), replace(snapshot.memory, status_written={**snapshot.memory.status_written, **written})


def _create_trouble(snapshot: Snapshot, workload: Workload) -> str:
    """What the apiserver has against the pods. A lost answer is nothing that the user could change."""
    setback = snapshot.memory.setbacks.get(create_key(workload.uid))
    return setback.message if setback and setback.by == "apiserver" else ""


def _gated(snapshot: Snapshot, standings: Iterable[WorkloadReplicas]) -> dict[str, int]:
    waits: Mapping[str, Replica] = {r.pod.uid: r for s in standings for r in s.replicas if r.pod is not None}
    gated = Counter(
        str(waits[uid].wait) if uid in waits else "NoWorkload" for uid, pod in snapshot.pods.items() if pod.gates
    )
    return dict(gated)


def _due(snapshot: Snapshot, memory: PassState) -> datetime | None:
    """The next moment at which time alone changes the decision."""
    moments = [state.due(memory, snapshot.now)]
    for uid, since in memory.refused_since.items():
        place = snapshot.pods[uid].place
        if place is not None:
            moments.append(since + grace(snapshot, place))
    moments += [since + snapshot.limits.degraded_grace for since in memory.degraded_since.values()]
    noticed = {uid: since for uid, (since, _) in memory.gone.items()}
    moments += [
        max(since, memory.let_go.get(uid, since)) + snapshot.limits.parting_delay for uid, since in noticed.items()
    ]
    later = [m for m in moments if m is not None and m > snapshot.now]
    return min(later, default=None)
