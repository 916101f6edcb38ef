"""One pass over what changed. Its decision is the one that `decide` makes of the whole cluster.

A pass looks at a region of the cluster: the objects that changed, those whose moment came, those that the last pass
acted on, and everything that these depend on. `decide` runs on the region as on a small cluster, with the kept fleet.
If it turns out that the region is too small, the pass starts again with a larger one. The messages of workloads that
wait are renewed in turns, so they may be some seconds older than those of `decide`.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice

from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.gang_creation import first_creations
from gpufleet_operator.decide.incremental.kept import Kept, unsettled
from gpufleet_operator.decide.incremental.region import Region, Seeds, close
from gpufleet_operator.decide.incremental.region_source import (
    ProbeSource,
    RegionSource,
    RegionTooSmallError,
    WholeSource,
)
from gpufleet_operator.decide.incremental.region_state import merge, thawed
from gpufleet_operator.decide.incremental.settled import is_settled
from gpufleet_operator.decide.reports import MAX_PER_PASS
from gpufleet_operator.decide.statuses import first_sendable
from gpufleet_operator.fleet.kept_fleet import ContestedDeviceError
from gpufleet_operator.model.actions import Actions, create_key, subject_of
from gpufleet_operator.model.cluster.changes import Changes, Subject, SubjectKind
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.create_errors import CreateError, classify
from gpufleet_operator.model.snapshot import Snapshot

QUEUE_INTERVAL = timedelta(milliseconds=100)
"""Delay of the pass that writes the statuses above the budget of this one."""
LATER_INTERVAL = timedelta(seconds=1)
"""Delay of the pass that creates pods or reports nodes above the limit of this one, if no response starts it."""


def decide_changes(
    snapshot: Snapshot, kept: Kept | None, changes: Changes, index: ClusterIndex
) -> tuple[Actions, Kept]:
    """Returns everything to write now, and what is kept for the next pass.

    Args:
        snapshot: The whole cluster. Its state is that of `kept`.
        kept: Of the last pass, which is changed in place; None: nothing is kept.
        changes: Since the last pass.
        index: Of the cluster.
    """
    if kept is None or changes.everything:
        return decide_all(snapshot, index)
    seeds = _seeds(snapshot, kept, changes, index)
    seeds.add(_picked(snapshot, kept, seeds, index))
    while True:
        region = close(seeds, snapshot, index)
        keys = region.state_keys(snapshot)
        source = RegionSource(kept.fleet, snapshot, region, index, kept.parked)
        try:
            actions = decide(region.view(snapshot, index, keys), source)
        except RegionTooSmallError as error:
            seeds.add(error.missing)
        except ContestedDeviceError:
            return decide_all(snapshot, index)
        else:
            break
    kept.state = merge(kept.state, keys, actions.state)
    _keep(snapshot, kept, region, source, actions, index=index)
    return _whole(snapshot, kept, actions), kept


def _picked(snapshot: Snapshot, kept: Kept, seeds: Seeds, index: ClusterIndex) -> Seeds:
    """Returns what a pass over only the workloads with new pods lacks: mostly the nodes on which it picks devices.

    With it, the pass over everything that changed hardly ever starts again.
    """
    pods = snapshot.pods
    uids = seeds.workloads.union(index.workload_of(pods[uid]) for uid in seeds.pods if uid in pods)
    new = {uid for uid in uids - kept.parked.keys() if _waits(uid, snapshot, index)}
    # A pass over all nodes anyway lacks none.
    if not new or len(seeds.nodes) >= len(snapshot.telemetry):
        return Seeds()
    region = close(Seeds(workloads=new), snapshot, index)
    source = ProbeSource(kept.fleet, snapshot, region, index, kept.parked)
    try:
        decide(region.view(snapshot, index, region.state_keys(snapshot)), source)
    except RegionTooSmallError as error:
        return error.missing
    except ContestedDeviceError:
        pass
    return Seeds()


def _waits(workload_uid: str, snapshot: Snapshot, index: ClusterIndex) -> bool:
    """Returns whether a workload has gated pods without a reservation."""
    workload = snapshot.workloads.get(workload_uid)
    pods = () if workload is None else index.pods_of_workload(workload.namespace, workload_uid)
    return any(snapshot.pods[uid].gates and not index.nodes_reserved_for.get(uid) for uid in pods)


def decide_all(snapshot: Snapshot, index: ClusterIndex) -> tuple[Actions, Kept]:
    """Returns everything to write now, from the snapshot alone, and what is kept for the next pass."""
    kept = Kept(snapshot.previous_state)
    source = WholeSource(kept.fleet)
    actions = decide(snapshot, source)
    kept.state = thawed(actions.state)
    nodes = frozenset((*snapshot.telemetry, *snapshot.nodes))
    _keep(
        snapshot,
        kept,
        Region(frozenset(snapshot.workloads), frozenset(snapshot.pods), nodes),
        source,
        actions,
        index=index,
    )
    return _whole(snapshot, kept, actions), kept


def _whole(snapshot: Snapshot, kept: Kept, actions: Actions) -> Actions:
    return replace(
        actions,
        state=kept.state,
        due=_due(snapshot, kept),
        unplaced=kept.unplaced,
        waits=kept.waits,
        inconsistencies=kept.fleet.inconsistencies,
    )


def _due(snapshot: Snapshot, kept: Kept) -> datetime | None:
    due = [kept.due(snapshot.now)]
    # The response to an earlier status starts the pass for a namespace that has no room.
    if any(_has_room(snapshot, uid) for uid in kept.state.status_queue):
        due.append(snapshot.now + QUEUE_INTERVAL)
    if kept.state.queued_creations or kept.late_reports:
        due.append(snapshot.now + LATER_INTERVAL)
    return min((moment for moment in due if moment is not None), default=None)


def _seeds(snapshot: Snapshot, kept: Kept, changes: Changes, index: ClusterIndex) -> Seeds:
    seeds = Seeds(set(changes.workloads), set(changes.pods), set(changes.nodes), set(changes.capacities))
    seeds.add(kept.again)
    ended = [(SubjectKind.KEY, key) for key in sorted(changes.keys)]
    for subject in (*ended, *kept.moments.take(snapshot.now), *kept.renewals.take(snapshot.now)):
        _add_subject(seeds, subject, index)
    # The queue has only names: a status is decided when it is written.
    seeds.workloads.update(_first_statuses(snapshot, kept.state.status_queue))
    seeds.workloads |= unsettled(kept.state) | kept.refresh.due(snapshot.now)
    # What these wait for depends on pods everywhere, or is not known: they are asked in each pass.
    seeds.workloads.update(uid for uid, request in kept.parked.items() if request is None or request.rules)
    seeds.workloads |= kept.state.held_creations
    state = kept.state
    seeds.workloads |= first_creations(state.queued_creations, snapshot.limits.max_creates, state)
    seeds.nodes.update(islice(kept.late_reports, MAX_PER_PASS))
    for name in changes.measured:
        settled = name not in kept.again.nodes and is_settled(name, snapshot, kept, index)
        (seeds.rows if settled else seeds.nodes).add(name)
    _add_quota(seeds, snapshot, kept)
    return seeds


def _first_statuses(snapshot: Snapshot, queue: Iterable[str]) -> list[str]:
    """Returns the first workloads of the queue whose statuses can be sent."""
    return list(first_sendable(snapshot, queue, partial(_namespace_of, snapshot)))


def _has_room(snapshot: Snapshot, workload_uid: str) -> bool:
    return snapshot.status_room.get(_namespace_of(snapshot, workload_uid), 1) > 0


def _namespace_of(snapshot: Snapshot, workload_uid: str) -> str:
    """Returns the namespace of a workload; empty: it was deleted."""
    workload = snapshot.workloads.get(workload_uid)
    return workload.namespace if workload is not None else ""


def _add_subject(seeds: Seeds, subject: Subject, index: ClusterIndex) -> None:
    kind, identity = subject
    if kind is SubjectKind.KEY:
        # The key names a workload, a pod, a node or, of a report, the object of a node.
        found = subject_of(identity)
        seeds.workloads.add(found)
        seeds.pods.add(found)
        seeds.nodes.add(index.node_of.get(found, found))
    elif kind is SubjectKind.WORKLOAD:
        seeds.workloads.add(identity)
    elif kind is SubjectKind.NODE:
        seeds.nodes.add(identity)
    else:
        seeds.pods.add(identity)
        seeds.nodes |= index.nodes_reserved_for.get(identity, set())


def _add_quota(seeds: Seeds, snapshot: Snapshot, kept: Kept) -> None:
    """Adds the workloads that wait for quota."""
    for key, backoff in kept.state.write_backoffs.items():
        if backoff.by != "apiserver" or classify(backoff.message) is not CreateError.QUOTA:
            continue
        uid = subject_of(key)
        if uid in snapshot.workloads and key == create_key(uid):
            seeds.workloads.add(uid)


def _keep(
    snapshot: Snapshot, kept: Kept, region: Region, source: WholeSource, actions: Actions, *, index: ClusterIndex
) -> None:
    """Replaces what is kept of the region."""
    now, moments, renewals = snapshot.now, kept.moments, kept.renewals
    for uid in region.pods:
        kept.waits.pop(uid, None)
        moments.set((SubjectKind.POD, uid), None)
    kept.waits.update(actions.waits)
    for uid in region.workloads:
        kept.unplaced.pop(uid, None)
        kept.parked.pop(uid, None)
        moments.set((SubjectKind.WORKLOAD, uid), None)
        renewals.set((SubjectKind.WORKLOAD, uid), _renewed_at(snapshot, kept, uid))
    kept.unplaced.update(actions.unplaced)
    kept.parked.update(source.parked)
    for name in region.nodes:
        kept.late_reports.pop(name, None)
        moments.set((SubjectKind.NODE, name), None)
        renewals.set((SubjectKind.NODE, name), _stale_at(snapshot, kept, name))
    kept.late_reports.update(dict.fromkeys(sorted(actions.late_reports)))
    # Each pass sees all backoffs.
    for key in kept.backing_off - kept.state.write_backoffs.keys():
        moments.set((SubjectKind.KEY, key), None)
    kept.backing_off = frozenset(kept.state.write_backoffs)
    for subject, moment in actions.moments.items():
        known = moments.get(subject) if subject[0] is not SubjectKind.KEY else None
        moments.set(subject, moment if known is None else min(known, moment))
    pods = snapshot.pods
    gated = {index.workload_of(pods[uid]) for uid in region.pods if uid in kept.waits}
    kept.refresh.look_at(region.workloads, gated, now)
    kept.again = _acted_on(snapshot, kept, region, actions, index)
    kept.again.workloads |= source.required


def _renewed_at(snapshot: Snapshot, kept: Kept, uid: str) -> datetime | None:
    """Returns when a change of only the messages of a workload is written that may have been held back."""
    written = kept.state.status_written.get(uid)
    at = written + snapshot.limits.message_interval if written is not None else None
    return at if at is not None and snapshot.now < at else None


def _stale_at(snapshot: Snapshot, kept: Kept, name: str) -> datetime | None:
    """Returns when a node's telemetry, or a sample of it, becomes stale."""
    moments = [kept.fleet.stale_at.get(name)]
    telemetry = snapshot.telemetry.get(name)
    if telemetry is not None and telemetry.confirmed_at is not None:
        moments.append(telemetry.confirmed_at + snapshot.limits.stale_after)
    return min((m for m in moments if m is not None and m >= snapshot.now), default=None)


def _acted_on(snapshot: Snapshot, kept: Kept, region: Region, actions: Actions, index: ClusterIndex) -> Seeds:
    """Returns the objects of all actions: the next pass looks at them, whether the writes succeed or not."""
    seeds = Seeds()
    reports = actions.reports
    for group in (
        actions.services,
        actions.restored_services,
        actions.creates,
        actions.statuses,
        actions.expired,
        actions.claims,
        actions.deleted_claims,
        actions.releases,
    ):
        seeds.workloads.update(action.workload_uid for action in group)
    for removals in (actions.deletes, actions.evictions):
        seeds.workloads.update(removal.workload_uid for removal in removals)
        seeds.pods.update(removal.uid for removal in removals)
    for pods in (actions.claims, actions.deleted_claims, actions.releases):
        seeds.pods.update(action.pod_uid for action in pods)
    seeds.pods.update(action.uid for action in actions.restores)
    seeds.pods.update(explained.pod_uid for explained in reports.pods)
    for written in (reports.telemetry, reports.nodes, actions.reserves):
        seeds.nodes.update(action.node for action in written)
    # Pods that were not explained, because there were too many.
    if len(reports.pods) >= MAX_PER_PASS:
        seeds.workloads.update(index.workload_of(snapshot.pods[uid]) for uid in region.pods if uid in kept.waits)
    return seeds
