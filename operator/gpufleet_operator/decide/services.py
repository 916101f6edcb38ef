"""Collects the headless Services to create: one for each workload whose pods have host names."""

from collections.abc import Iterable

from gpufleet_operator.model.actions import CreateService
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.pods import network


def collect_services(snapshot: Snapshot, state: PassState) -> tuple[CreateService, ...]:
    """Returns the Services that are missing, without those that are backing off.

    The garbage collector deletes a Service with its workload.
    """
    owners = {service.owner_uid for service in snapshot.services.values() if not service.deleting}
    missing = (action for action in _wanted(snapshot) if action.workload_uid not in owners)
    return tuple(action for action in missing if not state.is_backing_off(action.key, snapshot.now))


def _wanted(snapshot: Snapshot) -> Iterable[CreateService]:
    for uid, check in snapshot.templates.items():
        workload = snapshot.workloads[uid]
        if workload.model is None or workload.deleting or check.errors:
            continue
        if workload.model.spec.network.enable_dns_hostnames:
            yield CreateService(uid, network.service(workload))
