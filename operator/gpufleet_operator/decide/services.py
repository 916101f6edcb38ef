"""Collects the headless Services to create: one for each workload whose pods have host names."""

from collections.abc import Iterable

from gpufleet_operator.model.actions import CreateService
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.pods import network


def collect_services(snapshot: Snapshot, state: PassState) -> tuple[CreateService, ...]:
    """Returns the Services that are missing, without those that are backing off.

    The garbage collector deletes a Service with its workload.
    """
    missing = (CreateService(workload.uid, network.service(workload)) for workload in _without_service(snapshot))
    return tuple(action for action in missing if not state.is_backing_off(action.key, snapshot.now))


def _without_service(snapshot: Snapshot) -> Iterable[Workload]:
    """Yields the valid workloads that need a Service and have none, or one that is being deleted."""
    owners = {service.owner_uid for service in snapshot.services.values() if not service.deleting}
    for uid, check in snapshot.templates.items():
        workload = snapshot.workloads[uid]
        if uid in owners or workload.model is None or workload.deleting or check.errors:
            continue
        if workload.model.spec.network.enable_dns_hostnames:
            yield workload
