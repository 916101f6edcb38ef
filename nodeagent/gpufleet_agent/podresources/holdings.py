"""Who holds which device: the kubelet's list, joined with the pod UIDs of the assignments that were honoured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.listing import ContainerKey, ListedContainer, Listing


@dataclass(frozen=True, slots=True)
class Holder:
    """A container that holds a device."""

    key: ContainerKey
    pod_uid: str | None = None
    """Of the assignment that was honoured; None: a pod without one, or not known any more."""


Holders = Mapping[str, tuple[Holder, ...]]
"""By device UUID, in order of namespace, pod and container. A device that nobody holds is missing."""


def holders_of(
    listing: Listing, resource: str, honoured: Mapping[ContainerKey, Assignment], assignments: Iterable[Assignment]
) -> Holders:
    """Join the list with the assignments.

    Args:
        listing: The kubelet's list.
        resource: The resource whose devices count.
        honoured: What this process handed out and has seen confirmed or is still waiting to see.
        assignments: The reservations as last read; they tell the UID of pods that an earlier process served.
    """
    reserved = {(_key(assignment), frozenset(assignment.devices)): assignment for assignment in assignments}
    holders: dict[str, list[Holder]] = {}
    for listed in sorted(listing, key=_order):
        devices = listed.of(resource)
        if not devices:
            continue
        # The same name may be a later pod's, so the devices must agree too.
        assignment = honoured.get(listed.key)
        if assignment is None or frozenset(assignment.devices) != devices:
            assignment = reserved.get((listed.key, devices))
        holder = Holder(listed.key, assignment.pod_uid if assignment else None)
        for uuid in devices:
            holders.setdefault(uuid, []).append(holder)
    return {uuid: tuple(held) for uuid, held in holders.items()}


def still_held(
    honoured: Mapping[ContainerKey, Assignment], listing: Listing, resource: str
) -> dict[ContainerKey, Assignment]:
    """What remains of `honoured` once the kubelet has listed, with no allocation in flight, who holds what."""
    held = {listed.key: listed.of(resource) for listed in listing}
    return {key: assignment for key, assignment in honoured.items() if held.get(key) == frozenset(assignment.devices)}


class Holdings:
    """The last list and what this process handed out since."""

    def __init__(self, resource: str) -> None:
        self.resource = resource
        self.listing: Listing = ()
        self.listed_at: float | None = None
        """Loop time at which the last list was asked for; None: there was none yet."""
        self._honoured: dict[ContainerKey, Assignment] = {}

    def honour(self, assignment: Assignment) -> None:
        """Remember that this assignment's devices were handed out."""
        self._honoured[_key(assignment)] = assignment

    @property
    def honoured_uids(self) -> frozenset[str]:
        """Pod UIDs of the assignments handed out and not seen to end."""
        return frozenset(assignment.pod_uid for assignment in self._honoured.values())

    def update(self, listing: Listing, listed_at: float) -> bool:
        """Take over a list that was made while no allocation was in flight; True when it tells news."""
        changed = set(map(_facts, listing)) != set(map(_facts, self.listing))
        self._honoured = still_held(self._honoured, listing, self.resource)
        self.listing, self.listed_at = listing, listed_at
        return changed

    def holders(self, assignments: Iterable[Assignment]) -> Holders:
        """Who holds what, joined with the reservations given."""
        return holders_of(self.listing, self.resource, self._honoured, assignments)


def _key(assignment: Assignment) -> ContainerKey:
    return ContainerKey(assignment.namespace, assignment.pod, assignment.container)


def _order(listed: ListedContainer) -> tuple[str, str, str]:
    return listed.key.namespace, listed.key.pod, listed.key.container


def _facts(listed: ListedContainer) -> tuple[ContainerKey, frozenset[tuple[str, frozenset[str]]]]:
    return listed.key, frozenset(listed.devices.items())
