"""Keeps containers in the kubelet's list that it has dropped although a process of their pod still runs.

A pod that is deleted by force disappears from the list immediately. Its containers get the pod's grace period to
end, and use their devices until then.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.kubelet_checkpoint import HeldDevices
from gpufleet_agent.podresources.listing import ContainerKey, ListedContainer, Listing
from gpufleet_common.device_ids import device_of

log = structlog.get_logger(__name__)

_Reserved = tuple[ContainerKey, str, frozenset[str]]
"""Container, resource, UUIDs."""


class TerminatingPods:
    """Tracks pods that held devices in the last list, or still do.

    Args:
        with_process: Returns which of these pods, by UID, have a process. It may block, and raise OSError.
        checkpoint: Returns the UIDs of pods by what they hold, as the kubelet stores them. It may block.
        unchanged: Returns the same if the kubelet has stored nothing since, else None. Must not block.
        sees_processes: False: `with_process` cannot see processes of other containers, so nothing is added to lists.
    """

    def __init__(
        self,
        with_process: Callable[[frozenset[str]], frozenset[str]],
        checkpoint: Callable[[], Mapping[HeldDevices, str]],
        unchanged: Callable[[], Mapping[HeldDevices, str] | None] = lambda: None,
        *,
        sees_processes: bool,
    ) -> None:
        self._with_process = with_process
        self._checkpoint = checkpoint
        self._unchanged = unchanged
        self._sees_processes = sees_processes
        self._holders: dict[str, Listing] = {}
        """Containers with devices, by pod UID."""
        self._settled: frozenset[str] = frozenset()
        """Pods with a reservation that held nothing when it was first seen; if they get devices, a list has them."""
        self.observed = False
        """Whether the last list has every container that still runs, as far as pods and reservations are known."""

    async def complete(
        self, listing: Listing, assignments: Iterable[Assignment] | None, allocated: Iterable[Assignment] = ()
    ) -> Listing:
        """Returns the list with UIDs, and with the containers that it lacks but whose pods have a process.

        Call it while no allocation is in flight, with every list that is complete: a pod that is missing from it, but
        has a process, has ended for the kubelet, and does not start only now.

        Args:
            listing: The kubelet's list.
            assignments: The reservations; None: not read yet.
            allocated: The reservations that this process has honored since the last complete list.
        """
        if not self._sees_processes:
            return listing
        known = _by_pod((*(assignments or ()), *allocated))
        identified = await self._identify(listing, (each for of_pod in known.values() for each in of_pod))
        holders = _by_uid(identified)
        candidates = self._candidates(known, frozenset(each.pod_uid for each in allocated))
        missing = {uid: held for uid, held in candidates.items() if uid not in holders}
        try:
            alive = await asyncio.to_thread(self._with_process, frozenset(missing)) if missing else frozenset()
        except OSError as error:
            log.warning("processes not listed", error=str(error))
            self.observed, alive = False, frozenset(missing.keys() & self._holders.keys())
        else:
            self.observed = assignments is not None
        self._report(alive)
        self._settled = frozenset(known) - holders.keys() - alive
        terminating = {uid: tuple(replace(held, terminating=True) for held in missing[uid]) for uid in alive}
        self._holders = holders | terminating
        return (*identified, *(held for uid in sorted(terminating) for held in terminating[uid]))

    async def _identify(self, listing: Listing, known: Iterable[Assignment]) -> Listing:
        """Returns the list with the UIDs of pods that hold devices."""
        reserved = {_reserved_devices(each): each.pod_uid for each in known}
        identified = tuple(_with_uid(listed, reserved, {}) for listed in listing)
        if all(listed.pod_uid is not None or not listed.devices for listed in identified):
            return identified
        stored = self._unchanged()
        if stored is None:
            stored = await asyncio.to_thread(self._checkpoint)
        if not stored:
            return identified
        return tuple(_with_uid(listed, reserved, stored) for listed in listing)

    def _candidates(self, known: Mapping[str, Iterable[Assignment]], allocated: frozenset[str]) -> dict[str, Listing]:
        """Returns the pods that may have a process, by UID, with the containers that then hold devices."""
        # A pod with a reservation may have been dropped by the kubelet while no agent ran.
        reserved = {
            uid: tuple(
                ListedContainer(_key(each), {each.resource: frozenset(each.devices)}, pod_uid=uid) for each in of_pod
            )
            for uid, of_pod in known.items()
            if uid in allocated or uid not in self._settled
        }
        return {**reserved, **self._holders}

    def _report(self, alive: frozenset[str]) -> None:
        for uid in sorted(alive):
            if not any(held.terminating for held in self._holders.get(uid, ())):
                log.info("pod is no longer listed but has a process", pod_uid=uid)


def _by_pod(assignments: Iterable[Assignment]) -> dict[str, tuple[Assignment, ...]]:
    """Returns the latest assignment of each container, by the UID of its pod."""
    latest: dict[str, dict[str, Assignment]] = {}
    for each in assignments:
        latest.setdefault(each.pod_uid, {})[each.container] = each
    return {uid: tuple(found.values()) for uid, found in latest.items()}


def _reserved_devices(assignment: Assignment) -> _Reserved:
    return _key(assignment), assignment.resource, frozenset(assignment.devices)


def _key(assignment: Assignment) -> ContainerKey:
    return ContainerKey(assignment.namespace, assignment.pod, assignment.container)


def _with_uid(
    listed: ListedContainer, reserved: Mapping[_Reserved, str], stored: Mapping[HeldDevices, str]
) -> ListedContainer:
    for resource, ids in listed.devices.items():
        uid = reserved.get((listed.key, resource, frozenset(map(device_of, ids))))
        uid = uid or stored.get((listed.key.container, resource, ids))
        if uid is not None:
            return replace(listed, pod_uid=uid)
    return listed


def _by_uid(listing: Listing) -> dict[str, Listing]:
    found: dict[str, Listing] = {}
    for listed in listing:
        if listed.pod_uid is not None and listed.devices:
            found[listed.pod_uid] = (*found.get(listed.pod_uid, ()), listed)
    return found
