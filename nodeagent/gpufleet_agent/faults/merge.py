"""What two memories of an earlier process say together: the node's file and the last status. Pure.

Of each device the newer one counts. The file is written when a fault that is told once comes or goes, so it is the
newer one unless a status was written by a process that did not keep it.
"""

from collections.abc import Mapping
from dataclasses import replace

from gpufleet_agent.sampling.health import ReadFault, is_one_time
from gpufleet_agent.sampling.saved_state import Checkpoint, FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState


def is_status_newer(status: SavedState, file: Checkpoint) -> bool:
    """Whether the status was written after the file.

    Not by the clock alone: it may have been set back in between, and an old status would talk away a new fault.
    """
    return status.reported_at not in file.reports and status.reported_at > file.past.reported_at


def without_acknowledged_losses(status: SavedState, file: Checkpoint) -> SavedState:
    """An older status without devices that were acknowledged to be gone, which the file has left out since."""
    return replace(
        status,
        devices={
            uuid: device
            for uuid, device in status.devices.items()
            if uuid in file.past.devices or not _is_given_up(device, file.acknowledged)
        },
    )


def merge(file: SavedState, status: SavedState, *, status_is_newer: bool) -> SavedState:
    """Everything that is known of the devices.

    Of a device that both name, faults that are told once are those of the newer one, and what readings and reads show
    is as in the status, which alone has it. A device that only one names is as that one says: the file knows
    partitions that a status leaves out, and all of them when there was no status. A driver that was loaded anew
    between the two took the older one's faults with it.
    """
    newer, older = (status, file) if status_is_newer else (file, status)
    if None not in {newer.driver_version, older.driver_version} and newer.driver_version != older.driver_version:
        older = replace(older, devices={uuid: _well(device) for uuid, device in older.devices.items()})
        file, status = (older, newer) if status_is_newer else (newer, older)
    devices = {}
    for uuid in {**status.devices, **file.devices}:
        kept, told = file.devices.get(uuid), status.devices.get(uuid)
        if kept is not None and told is not None:
            devices[uuid] = _both(kept, file.reported_at, told, status.reported_at, status_is_newer=status_is_newer)
        elif kept is not None:
            devices[uuid] = _dated(kept, file.reported_at)
        elif told is not None:
            devices[uuid] = _dated(told, status.reported_at)
    driver_version = newer.driver_version or older.driver_version
    return SavedState(max(file.reported_at, status.reported_at), driver_version, devices)


def changes_since(merged: SavedState, file: SavedState) -> SavedState:
    """What is new in `merged` for a process that took over `file` before.

    A fault of the file isn't handed over again, for it may have ended since; and what the file says and `merged`
    doesn't has ended before.
    """
    # Another driver's faults were not taken over, or wrongly.
    same = None in {merged.driver_version, file.driver_version} or merged.driver_version == file.driver_version
    devices, ended = {}, {}
    for uuid, device in merged.devices.items():
        known = _told_once(file.devices[uuid]) if uuid in file.devices else {}
        taken_over = known if same else {}
        reasons = tuple(reason for reason in device.health.reasons if reason.code not in taken_over)
        state = HealthState.UNHEALTHY if reasons else HealthState.HEALTHY
        devices[uuid] = replace(device, health=replace(device.health, state=state, reasons=reasons))
        if gone := frozenset(known).difference(_told_once(device)):
            ended[uuid] = gone
    return replace(merged, devices=devices, cleared=ended)


def only_cleared(past: SavedState) -> SavedState:
    """What it says has ended, and nothing that stands."""
    return replace(past, devices={uuid: _well(past.devices[uuid]) for uuid in past.cleared})


def _both(
    kept: SavedDevice, kept_at: float, told: SavedDevice, told_at: float, *, status_is_newer: bool
) -> SavedDevice:
    newer, newer_at = (told, told_at) if status_is_newer else (kept, kept_at)
    shown = tuple(reason for reason in told.health.reasons if not is_one_time(reason.code))
    reasons = tuple(sorted((*_told_once(newer).values(), *shown), key=lambda reason: reason.code))
    sinces = [snapshot.since for snapshot in (newer.health, told.health) if snapshot.since is not None]
    health = HealthSnapshot(
        state=HealthState.UNHEALTHY if reasons else HealthState.HEALTHY,
        reasons=reasons,
        since=sinces[0] if sinces else None,
        warnings=told.health.warnings,
    )
    # A status has more of a device than the file, but not what it is a partition of.
    info = replace(told.info, parent=kept.info.parent, profile=kept.info.profile)
    return _dated(SavedDevice(info, health, newer.last), newer_at)


def _is_given_up(device: SavedDevice, acknowledged: Mapping[FaultAcknowledgment, float]) -> bool:
    return any(
        reason.code == ReadFault.DEVICE_LOST and one.covers(device.info.uuid) and reason.since <= counted
        for reason in device.health.reasons
        for one, counted in acknowledged.items()
    )


def _well(device: SavedDevice) -> SavedDevice:
    return SavedDevice(device.info, HealthSnapshot(HealthState.HEALTHY))


def _told_once(device: SavedDevice) -> Mapping[str, HealthReason]:
    return {reason.code: reason for reason in device.health.reasons if is_one_time(reason.code)}


def _dated(device: SavedDevice, reported: float) -> SavedDevice:
    """Each fault that is told once with the time at which it came last, whatever report it ends up in."""
    return replace(device, last={code: device.last.get(code, reported) for code in _told_once(device)})
