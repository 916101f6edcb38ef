"""Joins the kubelet's list with the allocated assignments: which container holds which device.

Devices count under any resource: one that another plugin has allocated is as little free as one of this plugin.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.listing import SHARED_BY_CLAIM, ContainerKey, ListedContainer, Listing, reserved_as
from gpufleet_api.names import DRA_DRIVER
from gpufleet_common.device_ids import device_of


@dataclass(frozen=True, slots=True)
class HoldingContainer:
    """A container that holds a device."""

    key: ContainerKey
    pod_uid: str | None = None
    """Of the allocated assignment; None: the pod has none, or it is no longer known."""
    shared: bool = False
    """Whether it holds a slot."""
    memory_mib: int | None = None
    """Memory of the device promised to it; None: nothing, or the whole device."""
    compute_percent: int | None = None
    terminating: bool = False
    """The kubelet no longer lists it, but a process of its pod runs."""
    process_uid: str | None = None
    """Pod UID in the cgroups of its processes; None: unknown."""


Holders = Mapping[str, tuple[HoldingContainer, ...]]
"""By device UUID, in order of namespace, pod and container. A device without a holder is missing."""


@dataclass(frozen=True, slots=True)
class OtherHolder:
    """A container that holds a device, but not by a claim of the agent's own driver."""

    key: ContainerKey
    resource: str
    """Of a device plugin, or the name of another DRA driver."""
    shared: bool = False
    """Whether it holds a slot."""


OtherHolders = Mapping[str, tuple[OtherHolder, ...]]
"""By device UUID. A device without a holder is missing."""


def holders_of(
    listing: Listing,
    shared_resource: str,
    allocated: Mapping[ContainerKey, Assignment],
    assignments: Iterable[Assignment],
) -> Holders:
    """Joins the list with the assignments.

    Args:
        listing: The kubelet's list.
        shared_resource: Resource of slots; empty: sharing is disabled.
        allocated: Assignments that this process has allocated, confirmed by a list or not yet listed.
        assignments: The reservations as last read; they have the UIDs of pods that an earlier process served.
    """
    reserved = {_claim(assignment): assignment for assignment in assignments}
    holders: dict[str, dict[ContainerKey, HoldingContainer]] = {}
    for listed in sorted(listing, key=_order):
        for resource, ids in sorted(listed.devices.items()):
            claim = listed.key, reserved_as(resource), frozenset(map(device_of, ids))
            # A later pod may have the same name, so the devices must match, too.
            assignment = allocated.get(listed.key)
            if assignment is None or _claim(assignment) != claim:
                assignment = reserved.get(claim)
            holder = _holder(listed, assignment, shared=resource in {shared_resource, SHARED_BY_CLAIM})
            for uuid in claim[2]:
                # Once per container even with several resources, because the status has holders by name.
                holders.setdefault(uuid, {}).setdefault(listed.key, holder)
    return {uuid: tuple(held.values()) for uuid, held in holders.items()}


def other_holders_of(listing: Listing, shared_resource: str) -> OtherHolders:
    """Returns who holds devices by device plugins and by other DRA drivers.

    Args:
        listing: The kubelet's list.
        shared_resource: Resource of slots; empty: sharing is disabled.
    """
    holders: dict[str, tuple[OtherHolder, ...]] = {}
    for listed in listing:
        for resource, ids in listed.devices.items():
            if reserved_as(resource) == DRA_DRIVER:
                continue
            holder = OtherHolder(listed.key, resource, shared=resource == shared_resource)
            for uuid in set(map(device_of, ids)):
                holders[uuid] = (*holders.get(uuid, ()), holder)
    return holders


def still_held(allocated: Mapping[ContainerKey, Assignment], listing: Listing) -> dict[ContainerKey, Assignment]:
    """Returns the part of `allocated` that a list made without an allocation in flight confirms."""
    held = {
        (listed.key, reserved_as(resource), frozenset(map(device_of, ids)))
        for listed in listing
        for resource, ids in listed.devices.items()
    }
    return {key: assignment for key, assignment in allocated.items() if _claim(assignment) in held}


class Holdings:
    """The last list, and the assignments allocated since.

    Args:
        shared_resource: Resource of slots; empty: sharing is disabled.
    """

    def __init__(self, shared_resource: str = "") -> None:
        self._shared_resource = shared_resource
        self.listing: Listing = ()
        self.listed_at: float | None = None
        """Loop time at which the last complete list was requested; None: there was none yet."""
        self._allocated: dict[ContainerKey, Assignment] = {}
        """Replaced, never changed, as the list is: `holders` compares both by identity."""
        self._joined: tuple[Listing, Mapping[ContainerKey, Assignment], Iterable[Assignment], Holders] | None = None

    def add(self, assignment: Assignment) -> None:
        """Adds an assignment whose devices were allocated."""
        self._allocated = {**self._allocated, _key(assignment): assignment}

    @property
    def allocated_uids(self) -> frozenset[str]:
        """Pod UIDs of the assignments that were allocated and have not ended."""
        return frozenset(assignment.pod_uid for assignment in self._allocated.values())

    @property
    def allocated(self) -> tuple[Assignment, ...]:
        """The assignments that were allocated and have not ended."""
        return tuple(self._allocated.values())

    def update(self, listing: Listing, listed_at: float, *, complete: bool = True) -> bool:
        """Updates from a list made while no allocation was in flight; returns whether anything changed.

        Args:
            listing: The list.
            listed_at: Loop time at which it was requested.
            complete: Whether a container that it lacks has ended. If not, the container's last known devices are kept.
        """
        first = complete and self.listed_at is None
        if complete:
            held = still_held(self._allocated, listing) if self._allocated else {}
            self._allocated, self.listed_at = self._allocated if held == self._allocated else held, listed_at
        else:
            named = {listed.key for listed in listing}
            listing = (*listing, *(listed for listed in self.listing if listed.devices and listed.key not in named))
        before = self.listing
        if listing == before:
            return first
        self.listing = listing
        return first or set(map(_facts, listing)) != set(map(_facts, before))

    def holders(self, assignments: tuple[Assignment, ...]) -> Holders:
        """Returns the holders of each device, joined with these reservations. They are joined once per change."""
        joined = self._joined
        if joined is None or not (
            joined[0] is self.listing and joined[1] is self._allocated and joined[2] is assignments
        ):
            found = holders_of(self.listing, self._shared_resource, self._allocated, assignments)
            joined = self._joined = (self.listing, self._allocated, assignments, found)
        return joined[3]

    def other_holders(self) -> OtherHolders:
        """Returns who holds devices by device plugins and by other DRA drivers."""
        return other_holders_of(self.listing, self._shared_resource)


def _key(assignment: Assignment) -> ContainerKey:
    return ContainerKey(assignment.namespace, assignment.pod, assignment.container)


def _claim(assignment: Assignment) -> tuple[ContainerKey, str, frozenset[str]]:
    return _key(assignment), assignment.resource, frozenset(assignment.devices)


def _holder(listed: ListedContainer, assignment: Assignment | None, *, shared: bool) -> HoldingContainer:
    if assignment is None:
        return HoldingContainer(
            listed.key,
            # The operator may have removed the reservation; its container must not look like that of another pod.
            listed.pod_uid if listed.terminating else None,
            shared=shared,
            terminating=listed.terminating,
            process_uid=listed.pod_uid,
        )
    return HoldingContainer(
        listed.key,
        assignment.pod_uid,
        shared,
        assignment.memory_mib,
        assignment.compute_percent,
        terminating=listed.terminating,
        process_uid=listed.pod_uid,
    )


def _order(listed: ListedContainer) -> tuple[str, str, str, bool]:
    # Of two pods of one name the one that the kubelet lists comes first.
    return listed.key.namespace, listed.key.pod, listed.key.container, listed.terminating


def _facts(listed: ListedContainer) -> tuple[ContainerKey, bool, frozenset[tuple[str, frozenset[str]]]]:
    return listed.key, listed.terminating, frozenset(listed.devices.items())
