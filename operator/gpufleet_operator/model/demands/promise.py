"""Rules on the promise of a share: its memory for placement, and whether others may get the unused part."""

from gpufleet_api.names import Reclaim
from gpufleet_api.telemetry.device import DeviceHolder
from gpufleet_api.telemetry.spec import Assignment


def is_reclaimable(assignment: Assignment) -> bool:
    """Returns True when others may get the promised memory that the pod does not use."""
    return assignment.memory_mib is not None and assignment.reclaim is Reclaim.USED


def shares_its_promise(assignment: Assignment) -> bool:
    """Returns True when the pod may count with less than its promise."""
    return is_reclaimable(assignment) or assignment.demand_mib is not None


def placed_mib(promise: Assignment | DeviceHolder) -> int:
    """Returns the MiB with which a holder was placed: its promise, or what earlier runs used."""
    learned = promise.demand_mib if isinstance(promise, Assignment) else None
    return learned or promise.memory_mib or 0
