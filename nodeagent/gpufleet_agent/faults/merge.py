"""Merges the two saved states of an earlier process: the fault file on the node and the last status. Pure.

For each device the newer one is used. The checkpoint is written whenever a one-time fault (one that the driver reports
only once) begins or ends, so it is the newer one unless a process without a checkpoint wrote the status.
"""

from collections.abc import Mapping
from dataclasses import replace

from gpufleet_agent.sampling.health import ReadFault, is_one_time
from gpufleet_agent.sampling.saved_state import Checkpoint, FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState


def is_status_newer(status: SavedState, checkpoint: Checkpoint) -> bool:
    """Returns whether the status was written after the checkpoint.

    Not by the clock only, which may have been set back in between: an old status would then clear a new fault.
    """
    return status.reported_at not in checkpoint.reports and status.reported_at > checkpoint.state.reported_at


def without_acknowledged_losses(status: SavedState, checkpoint: Checkpoint) -> SavedState:
    """Returns an older status without devices whose loss was acknowledged and which the checkpoint has left out."""
    return replace(
        status,
        devices={
            uuid: device
            for uuid, device in status.devices.items()
            if uuid in checkpoint.state.devices or not _is_loss_acknowledged(device, checkpoint.acknowledgments)
        },
    )


def merge(file: SavedState, status: SavedState, *, status_is_newer: bool) -> SavedState:
    """Merges the state in the fault file with that in the status.

    For a device in both, one-time faults are those of the newer state, and faults that readings show are those of the
    status, because only the status has them. A device in only one of them is as in that one: the file has partitions
    that a status leaves out, and all devices if there was no status. If the driver was reloaded between the two, it
    cleared the faults of the older one.
    """
    newer, older = (status, file) if status_is_newer else (file, status)
    if None not in {newer.driver_version, older.driver_version} and newer.driver_version != older.driver_version:
        older = replace(older, devices={uuid: _healthy(device) for uuid, device in older.devices.items()})
        file, status = (older, newer) if status_is_newer else (newer, older)
    devices = {}
    for uuid in {**status.devices, **file.devices}:
        in_file, in_status = file.devices.get(uuid), status.devices.get(uuid)
        if in_file is not None and in_status is not None:
            newer_at = status.reported_at if status_is_newer else file.reported_at
            devices[uuid] = _merge_device(in_file, in_status, newer_at, status_is_newer=status_is_newer)
        elif in_file is not None:
            devices[uuid] = _with_times(in_file, file.reported_at)
        elif in_status is not None:
            devices[uuid] = _with_times(in_status, status.reported_at)
    driver_version = newer.driver_version or older.driver_version
    return SavedState(max(file.reported_at, status.reported_at), driver_version, devices)


def changes_since(merged: SavedState, file: SavedState) -> SavedState:
    """Returns what `merged` adds for a process that has restored `file` already.

    A fault of the file is not restored again, because it may have ended since. A fault in the file that is not in
    `merged` ended before, and is listed as cleared.
    """
    # Faults of another driver version were not restored, or should not have been.
    same_driver = None in {merged.driver_version, file.driver_version} or merged.driver_version == file.driver_version
    devices, cleared = {}, {}
    for uuid, device in merged.devices.items():
        known = _one_time_faults(file.devices[uuid]) if uuid in file.devices else {}
        restored = known if same_driver else {}
        reasons = tuple(reason for reason in device.health.reasons if reason.code not in restored)
        devices[uuid] = replace(device, health=replace(device.health, state=_state(reasons), reasons=reasons))
        if ended := frozenset(known).difference(_one_time_faults(device)):
            cleared[uuid] = ended
    return replace(merged, devices=devices, cleared=cleared)


def only_cleared(state: SavedState) -> SavedState:
    """Returns the state with the faults that were cleared, and without current ones."""
    return replace(state, devices={uuid: _healthy(state.devices[uuid]) for uuid in state.cleared})


def _merge_device(
    in_file: SavedDevice, in_status: SavedDevice, newer_at: float, *, status_is_newer: bool
) -> SavedDevice:
    newer = in_status if status_is_newer else in_file
    from_readings = tuple(reason for reason in in_status.health.reasons if not is_one_time(reason.code))
    reasons = tuple(sorted((*_one_time_faults(newer).values(), *from_readings), key=lambda reason: reason.code))
    times = [health.since for health in (newer.health, in_status.health) if health.since is not None]
    health = HealthSnapshot(
        state=_state(reasons),
        reasons=reasons,
        since=times[0] if times else None,
        warnings=in_status.health.warnings,
    )
    # A status has more facts of a device than the file, except what it is a partition of.
    info = replace(in_status.info, parent=in_file.info.parent, profile=in_file.info.profile)
    return _with_times(SavedDevice(info, health, newer.last_seen), newer_at)


def _is_loss_acknowledged(device: SavedDevice, acknowledgments: Mapping[FaultAcknowledgment, float]) -> bool:
    return any(
        reason.code == ReadFault.DEVICE_LOST and one.covers(device.info.uuid) and reason.since <= until
        for reason in device.health.reasons
        for one, until in acknowledgments.items()
    )


def _state(reasons: tuple[HealthReason, ...]) -> HealthState:
    return HealthState.UNHEALTHY if reasons else HealthState.HEALTHY


def _healthy(device: SavedDevice) -> SavedDevice:
    return SavedDevice(device.info, HealthSnapshot(HealthState.HEALTHY))


def _one_time_faults(device: SavedDevice) -> Mapping[str, HealthReason]:
    return {reason.code: reason for reason in device.health.reasons if is_one_time(reason.code)}


def _with_times(device: SavedDevice, reported_at: float) -> SavedDevice:
    """Returns the device with the last time of each one-time fault, independent of the state it ends up in."""
    times = {code: device.last_seen.get(code, reported_at) for code in _one_time_faults(device)}
    return replace(device, last_seen=times)
