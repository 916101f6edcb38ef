"""Who holds which device: the kubelet's list, joined with the assignments that were honoured.

Under whatever resource: a device that another plugin gave away is as little free as one that we gave.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.listing import ContainerKey, ListedContainer, Listing
from gpufleet_common.device_ids import device_of


@dataclass(frozen=True, slots=True)
class DeviceHolder:
    """A container that holds a device."""

    key: ContainerKey
    pod_uid: str | None = None
    """Of the assignment that was honoured; None: a pod without one, or not known any more."""
    shared: bool = False
    """It holds a slot."""
    memory_mib: int | None = None
    """Promised of this device; None: nothing, or the device as a whole."""
    compute_percent: int | None = None


Holders = Mapping[str, tuple[DeviceHolder, ...]]
"""By device UUID, in order of namespace, pod and container. A device that nobody holds is missing."""


def holders_of(
    listing: Listing,
    shared_resource: str,
    honoured: Mapping[ContainerKey, Assignment],
    assignments: Iterable[Assignment],
) -> Holders:
    """Join the list with the assignments.

    Args:
        listing: The kubelet's list.
        shared_resource: The resource of slots; empty: there is none.
        honoured: What this process handed out and has seen confirmed or is still waiting to see.
        assignments: The reservations as last read; they tell the UID of pods that an earlier process served.
    """
    reserved = {_claim(assignment): assignment for assignment in assignments}
    holders: dict[str, dict[ContainerKey, DeviceHolder]] = {}
    for listed in sorted(listing, key=_order):
        for resource, ids in sorted(listed.devices.items()):
            claim = listed.key, resource, frozenset(map(device_of, ids))
            # The same name may be a later pod's, so the devices must agree too.
            assignment = honoured.get(listed.key)
            if assignment is None or _claim(assignment) != claim:
                assignment = reserved.get(claim)
            holder = _holder(listed.key, assignment, shared=resource == shared_resource)
            for uuid in claim[2]:
                # Once for each container, whatever the number of resources: the status has them by name.
                holders.setdefault(uuid, {}).setdefault(listed.key, holder)
    return {uuid: tuple(held.values()) for uuid, held in holders.items()}


def still_held(honoured: Mapping[ContainerKey, Assignment], listing: Listing) -> dict[ContainerKey, Assignment]:
    """What remains of `honoured` once the kubelet has listed, with no allocation in flight, who holds what."""
    held = {
        (listed.key, resource, frozenset(map(device_of, ids)))
        for listed in listing
        for resource, ids in listed.devices.items()
    }
    return {key: assignment for key, assignment in honoured.items() if _claim(assignment) in held}


class Holdings:
    """The last list and what this process handed out since.

    Args:
        shared_resource: The resource of slots; empty: there is none.
    """

    def __init__(self, shared_resource: str = "") -> None:
        self._shared_resource = shared_resource
        self.listing: Listing = ()
        self.listed_at: float | None = None
        """Loop time at which the last complete list was asked for; None: there was none yet."""
        self._honoured: dict[ContainerKey, Assignment] = {}

    def honour(self, assignment: Assignment) -> None:
        """Remember that this assignment's devices were handed out."""
        self._honoured[_key(assignment)] = assignment

    @property
    def honoured_uids(self) -> frozenset[str]:
        """Pod UIDs of the assignments handed out and not seen to end."""
        return frozenset(assignment.pod_uid for assignment in self._honoured.values())

    def update(self, listing: Listing, listed_at: float, *, complete: bool = True) -> bool:
        """Take over a list that was made while no allocation was in flight; True when it tells news.

        Args:
            listing: The list.
            listed_at: Loop time at which it was asked for.
            complete: Whether a container that it lacks is gone; if not, what it was last known to hold stands.
        """
        first = complete and self.listed_at is None
        if complete:
            self._honoured, self.listed_at = still_held(self._honoured, listing), listed_at
        else:
            named = {listed.key for listed in listing}
            listing = (*listing, *(listed for listed in self.listing if listed.devices and listed.key not in named))
        changed = first or set(map(_facts, listing)) != set(map(_facts, self.listing))
        self.listing = listing
        return changed

    def holders(self, assignments: Iterable[Assignment]) -> Holders:
        """Who holds what, joined with the reservations given."""
        return holders_of(self.listing, self._shared_resource, self._honoured, assignments)


def _key(assignment: Assignment) -> ContainerKey:
    return ContainerKey(assignment.namespace, assignment.pod, assignment.container)


def _claim(assignment: Assignment) -> tuple[ContainerKey, str, frozenset[str]]:
    return _key(assignment), assignment.resource, frozenset(assignment.devices)


def _holder(key: ContainerKey, assignment: Assignment | None, *, shared: bool) -> DeviceHolder:
    if assignment is None:
        return DeviceHolder(key, shared=shared)
    return DeviceHolder(key, assignment.pod_uid, shared, assignment.memory_mib, assignment.compute_percent)


def _order(listed: ListedContainer) -> tuple[str, str, str]:
    return listed.key.namespace, listed.key.pod, listed.key.container


def _facts(listed: ListedContainer) -> tuple[ContainerKey, frozenset[tuple[str, frozenset[str]]]]:
    return listed.key, frozenset(listed.devices.items())
