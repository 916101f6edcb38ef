"""Collects the writes of headless Services: one Service for each workload whose pods have host names."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from gpufleet_operator.model.actions import CreateService, RestoreService
from gpufleet_operator.model.objects import Service, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.pods import network

RESTORE_INTERVAL = timedelta(seconds=30)


def collect_services(snapshot: Snapshot, state: PassState) -> tuple[CreateService, ...]:
    """Returns the Services that are missing, without those that are backing off.

    The garbage collector deletes a Service with its workload.
    """
    owned = _by_owner(snapshot)
    missing = (w for w in _with_service(snapshot) if (w.namespace, w.uid) not in owned)
    created = (CreateService(workload.uid, network.service(workload)) for workload in missing)
    return tuple(action for action in created if not state.is_backing_off(action.key, snapshot.now))


def collect_restored_services(snapshot: Snapshot, state: PassState) -> tuple[RestoreService, ...]:
    """Returns the Services that another client changed, without those that are backing off.

    A client that changes them again and again is answered every half minute.
    """
    recent = _recently_restored(snapshot, state)
    owned = _by_owner(snapshot)
    restored = (
        RestoreService(workload.uid, workload.name, service.uid, network.service(workload))
        for workload in _with_service(snapshot)
        if workload.uid not in recent
        and (service := owned.get((workload.namespace, workload.uid))) is not None
        and network.differs(service, workload)
    )
    return tuple(action for action in restored if not state.is_backing_off(action.key, snapshot.now))


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


def _with_service(snapshot: Snapshot) -> Iterable[Workload]:
    """Yields the workloads that have, or will have, pods with host names."""
    for uid, check in snapshot.templates.items():
        workload = snapshot.workloads[uid]
        if workload.model is None or workload.deleting or workload.model.spec.adopts:
            continue
        if not workload.model.spec.network.enable_dns_hostnames:
            continue
        # With an invalid template no pods are created, but those of an earlier template need their names.
        if not check.errors or any(pod.workload_uid == uid for pod in snapshot.pods.values()):
            yield workload
