"""Collects the writes of headless Services: one Service for each workload whose pods have host names."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.model.actions import CreateService, RestoreService
from gpufleet_operator.model.objects import Service, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.pods import network

RESTORE_INTERVAL = timedelta(seconds=30)


def collect_services(snapshot: Snapshot, state: PassState, *, guard: WorkloadGuard) -> tuple[CreateService, ...]:
    """Returns the Services that are missing, without those that are backing off.

    The garbage collector deletes a Service with its workload.
    """
    owned = _by_owner(snapshot)

    def missing(uid: str) -> CreateService | None:
        workload = _with_service(snapshot, uid)
        if workload is None or (workload.namespace, uid) in owned:
            return None
        return CreateService(uid, network.service(workload))

    found = guard.each(missing, snapshot.templates, str)
    return tuple(a for a in found if a is not None and not state.is_backing_off(a.key, snapshot.now))


def collect_restored_services(
    snapshot: Snapshot, state: PassState, *, guard: WorkloadGuard
) -> tuple[RestoreService, ...]:
    """Returns the Services that another client changed, without those that are backing off.

    A client that changes them again and again is answered every half minute.
    """
    recent = _recently_restored(snapshot, state)
    owned = _by_owner(snapshot)

    def changed(uid: str) -> RestoreService | None:
        workload = _with_service(snapshot, uid) if uid not in recent else None
        service = owned.get((workload.namespace, uid)) if workload is not None else None
        if service is None or workload is None or not network.differs(service, workload):
            return None
        return RestoreService(uid, workload.name, service.uid, network.service(workload))

    found = guard.each(changed, snapshot.templates, str)
    return tuple(a for a in found if a is not None and not state.is_backing_off(a.key, snapshot.now))


def _by_owner(snapshot: Snapshot) -> dict[tuple[str, str], Service]:
    """Returns the Services by namespace and uid of their owner.

    An owner is in the namespace of its Service: users can write the uid of any object into one of their own namespace.
    """
    return {(one.namespace, one.owner_uid): one for one in snapshot.services.values() if not one.deleting}


def next_restored(snapshot: Snapshot, state: PassState, restored: Iterable[RestoreService]) -> dict[str, datetime]:
    """Returns the times of recent restorations for the state after this pass, with these."""
    added = {action.workload_uid: snapshot.now for action in restored}
    return {**_recently_restored(snapshot, state), **added}


def _recently_restored(snapshot: Snapshot, state: PassState) -> dict[str, datetime]:
    return {uid: at for uid, at in state.services_restored.items() if snapshot.now - at < RESTORE_INTERVAL}


def _with_service(snapshot: Snapshot, uid: str) -> Workload | None:
    """Returns the workload if it has, or will have, pods with host names."""
    workload = snapshot.workloads[uid]
    if workload.model is None or workload.deleting or workload.model.spec.adopts:
        return None
    if not workload.model.spec.network.enable_dns_hostnames:
        return None
    # With an invalid template no pods are created, but those of an earlier template need their names.
    needed = not snapshot.templates[uid].errors or any(pod.workload_uid == uid for pod in snapshot.pods.values())
    return workload if needed else None
