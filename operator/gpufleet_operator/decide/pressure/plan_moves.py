"""Picks another device for one pod of each device that runs out of memory.

The device is reserved in this pass; a later pass reads the reservation and evicts the pod. Nothing is moved without
room for it: two full devices do not swap their pods, because neither has room before the other's pod has ended.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from gpufleet_api.base import MovedFrom
from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.decide.assignment import new_assignment
from gpufleet_operator.decide.claims.transports import nodes_with_other_transport
from gpufleet_operator.decide.pressure.candidates import MovablePod, PressedDevice
from gpufleet_operator.decide.pressure.unpinned import unpinned
from gpufleet_operator.decide.retries.pause_rules import excluded_nodes
from gpufleet_operator.decide.shards import range_of
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.fleet.pod_rules import PlacedPods
from gpufleet_operator.ledger.move_target import move_target
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import DevicePressure, PassState
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.model import DeviceState, Pick, ScoreWeights, Share

ROOM_PERCENT = 95
"""Maximum use of the usable memory of a device after a pod was moved to it."""
_MAX_PICKS = 3
"""Maximum number of devices that are checked for one pod, the one with the most free memory first."""
_MIB_PER_GIB = 1024


class MoveRejection(StrEnum):
    """Why no pod is moved from a device that runs out of memory."""

    NOT_MOVABLE = "NoMovablePod"
    """No pod that exceeds or shares its promise may be moved now."""
    NO_ROOM = "NoRoom"
    HOURLY_LIMIT = "HourlyLimit"


@dataclass(frozen=True, slots=True)
class MovePlan:
    """The moves that a pass decides on."""

    targets: tuple[Reservation, ...] = ()
    moved: tuple[str, ...] = ()
    """UIDs of the moved pods."""
    tried: tuple[tuple[str, str], ...] = ()
    """Nodes and UUIDs of the devices from which a pod was to be moved."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)

    def pressure_after(self, state: PassState, now: datetime) -> dict[str, Mapping[str, DevicePressure]]:
        """Returns the state of devices with the time of these moves."""
        after = {node: dict(devices) for node, devices in state.pressure.items()}
        for node, uuid in self.tried:
            after[node][uuid] = replace(after[node][uuid], tried=now)
        return dict(after)

    def moves_after(self, state: PassState, now: datetime) -> dict[str, datetime]:
        """Returns the moves of the last hour, with these."""
        return {**state.moves, **dict.fromkeys(self.moved, now)}


def plan_moves(
    snapshot: Snapshot,
    state: PassState,
    fleet: Fleet,
    pods: PlacedPods,
    pressed: Sequence[PressedDevice],
    *,
    unusable: frozenset[str],
) -> MovePlan:
    """Returns the moves, and deducts their devices from the fleet.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        fleet: After the picks of this pass.
        pods: That restrict where others run.
        pressed: The devices.
        unusable: Names of nodes on which nothing is placed in this pass.
    """
    left = snapshot.limits.max_moves_per_hour - len(state.moves)
    targets_of = _Targets(snapshot, state, fleet, pods, unusable)
    targets: list[Reservation] = []
    moved: list[str] = []
    reasons: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for device in pressed:
        if left <= 0 or not device.pods:
            rejected[MoveRejection.NOT_MOVABLE if left > 0 else MoveRejection.HOURLY_LIMIT] += 1
            continue
        if any(pod.pod.uid in moved for pod in device.pods):
            continue  # a pod with several devices that leaves this one as well
        for pod in device.pods:
            target = targets_of.reserve(device, pod)
            if target is not None:
                left -= 1
                targets.append(target)
                moved.append(pod.pod.uid)
                reasons[pod.reason] += 1
                break
        else:
            rejected[MoveRejection.NO_ROOM] += 1
    tried = tuple((one.node, one.device.uuid) for one in pressed)
    return MovePlan(tuple(targets), tuple(moved), tried, reasons, rejected)


@dataclass(frozen=True, slots=True)
class _Targets:
    snapshot: Snapshot
    state: PassState
    fleet: Fleet
    pods: PlacedPods
    unusable: frozenset[str]

    def reserve(self, device: PressedDevice, movable: MovablePod) -> Reservation | None:
        """Returns the reservation of another device with room for the pod, deducted from the fleet; None: none has."""
        excluded = {device.device.uuid}
        for _ in range(_MAX_PICKS):
            pick = self._pick(movable, excluded)
            if pick is None:
                return None
            full = self._without_room(pick, movable.needed_mib)
            if not full:
                share = Share(movable.needed_mib, movable.reservation.assignment.compute_percent or 0)
                self.fleet.hold(pick.node, pick.devices, movable.pod.needs, share)
                self.pods.add(pick.node, movable.pod.traits)
                return self._target(device, movable, pick)
            excluded |= full
        return None

    def _pick(self, movable: MovablePod, excluded: set[str]) -> Pick | None:
        workload, index = movable.workload.workload, movable.replica.index
        if workload.model is None:
            raise TypeError(f"{workload.full_name} has no model")  # only workloads that parse are assessed
        rejecting = excluded_nodes(self.snapshot, self.state, workload.uid, [index])[index]
        other = nodes_with_other_transport(self.snapshot, movable.pod.transport)
        requested = request(
            workload.model,
            replicas=(index,),
            resources=self.snapshot.limits.resources,
            excluded_nodes={index: rejecting | other | self.unusable},
        )
        share = Share(movable.needed_mib, movable.reservation.assignment.compute_percent or 0)
        wanted = requested.devices
        # A UUID may not be in both.
        included = wanted.include_uuids - excluded
        if wanted.include_uuids and not included:
            return None
        devices = replace(
            wanted,
            share=share,
            include_uuids=included,
            exclude_uuids=frozenset() if included else wanted.exclude_uuids | excluded,
        )
        # The device with the most room, whatever the workload prefers.
        requested = replace(requested, devices=devices, strategy=Strategy.BEST, weights=ScoreWeights(1, 0, 0, 0))
        restricted = self.pods.restrict(requested, workload.model.spec.requirements, unpinned(movable.pod))
        try:
            decision = place(self.fleet, restricted, self.snapshot.mix, explain=False)
        except PlacementError:
            return None
        return next(iter(decision.picks), None)

    def _without_room(self, pick: Pick, needed_mib: int) -> set[str]:
        """Returns the devices that have no room. Those that the pod has now count with it as long as it runs."""
        picked = (d for d in self.fleet.nodes[pick.node].devices if d.uuid in pick.devices)
        return {device.uuid for device in picked if not _has_room(device, needed_mib)}

    def _target(self, device: PressedDevice, movable: MovablePod, pick: Pick) -> Reservation:
        old = movable.reservation.assignment
        assignment = new_assignment(
            self.snapshot,
            movable.workload.workload,
            movable.replica.index,
            movable.pod,
            devices=pick.devices,
            shard=range_of(old),
        )
        used_gib, promised_gib = movable.used_mib / _MIB_PER_GIB, movable.promised_mib / _MIB_PER_GIB
        message = (
            f"moved from {device.node}/{device.device.uuid} at {device.used_percent:.1f} % to {pick.node}/"
            f"{_first(pick.devices)}: uses {used_gib:.1f} GiB of {promised_gib:.1f} promised"
        )
        origin = MovedFrom(pod_uid=movable.pod.uid, node=device.node, device=device.device.uuid, message=message)
        return Reservation(pick.node, move_target(assignment, origin, movable.needed_mib))


def _has_room(device: DeviceState, needed_mib: int) -> bool:
    usable, used = device.memory_usable_mib, device.memory_in_use_mib
    return usable is not None and used is not None and 100 * (used + needed_mib) <= ROOM_PERCENT * usable


def _first(uuids: Sequence[str]) -> str:
    return uuids[0] if len(uuids) == 1 else f"{uuids[0]} and {len(uuids) - 1} more"
