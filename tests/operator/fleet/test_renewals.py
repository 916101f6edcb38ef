"""After the renewal of an agent's Lease, the kept fleet is the one that is built from scratch."""

from dataclasses import replace
from datetime import datetime, timedelta

from gpufleet_common import timestamps
from gpufleet_operator.fleet.build import NodeInputs, node_inputs, node_state_of
from gpufleet_operator.fleet.kept_fleet import KeptFleet
from gpufleet_operator.ledger.ledger import read_ledger
from gpufleet_operator.model.objects import Telemetry
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement.model import DeviceState
from gpufleet_testing.operator import make

STALE_AFTER = timedelta(seconds=90)
REPORT_AGE = 40.0
NAME = "node-1"
NODE = make.node(NAME, devices=2)


def after(seconds: float) -> datetime:
    return make.NOW + timedelta(seconds=seconds)


def seen(telemetry: Telemetry, now: datetime) -> tuple[Snapshot, NodeInputs]:
    owners = [one.workload_uid.removeprefix("uid-") for one in telemetry.assignments]
    workloads, pods = list(map(make.workload, owners)), list(map(make.pod, owners))
    snapshot = make.snapshot(telemetry, NODE, *pods, *workloads, now=now)
    (inputs,) = node_inputs(snapshot, read_ledger(snapshot, PassState()))
    return snapshot, inputs


def renewed(report: Telemetry, at: datetime, now: datetime) -> tuple[bool, KeptFleet]:
    """Returns whether the state of the node is kept when its Lease is renewed, and the kept fleet after that."""
    kept = KeptFleet()
    before, inputs = seen(report, make.NOW)
    kept.note_inputs([inputs])
    kept.fill([node_state_of(before, inputs)], make.NOW, STALE_AFTER)
    later, inputs = seen(replace(report, confirmed_at=at), now)
    unchanged = kept.note_inputs([inputs])
    states = [] if unchanged else [node_state_of(later, inputs)]
    kept.update({NAME}, states, now, STALE_AFTER, unchanged=unchanged)
    return bool(unchanged), kept


def from_scratch(report: Telemetry, at: datetime, now: datetime) -> tuple[DeviceState, ...]:
    later, inputs = seen(replace(report, confirmed_at=at), now)
    return tuple(without_age(device) for device in node_state_of(later, inputs).devices)


def without_age(device: DeviceState) -> DeviceState:
    return replace(device, sample_age_seconds=None if device.sample_age_seconds is None else 0.0)


def devices(kept: KeptFleet) -> tuple[DeviceState, ...]:
    return kept.fleet.nodes[NAME].devices


def test_state_is_kept_and_stale_as_much_later() -> None:
    report = make.telemetry(age=REPORT_AGE)
    is_kept, kept = renewed(report, after(-10), after(1))
    assert is_kept
    assert kept.stale_at == {NAME: after(80)}
    assert devices(kept) == from_scratch(report, after(-10), after(1))


def test_promise_is_not_in_flight_when_a_renewal_makes_the_sample_newer() -> None:
    report = make.telemetry(age=REPORT_AGE, assignments=[make.shared_assignment("share", seconds_ago=25)])
    assert [d.in_flight_memory_mib for d in from_scratch(report, after(-REPORT_AGE), make.NOW)] == [1000, 0]
    is_kept, kept = renewed(report, after(-10), after(1))
    assert not is_kept
    assert devices(kept) == from_scratch(report, after(-10), after(1))
    assert [device.in_flight_memory_mib for device in devices(kept)] == [0, 0]


def test_sample_that_was_stale_is_fresh_after_a_renewal() -> None:
    report = make.telemetry(age=REPORT_AGE)
    status = make.telemetry_status(report)
    old = status.devices[1].model_copy(update={"sample_time": timestamps.micros(after(-REPORT_AGE - 60))})
    changed = status.model_copy(update={"devices": [status.devices[0], old]})
    report = replace(report, model=report.model.model_copy(update={"status": changed}))
    assert [bool(d.stale_reason) for d in from_scratch(report, after(-REPORT_AGE), make.NOW)] == [False, True]
    is_kept, kept = renewed(report, after(-10), after(1))
    assert not is_kept
    assert devices(kept) == from_scratch(report, after(-10), after(1))
    assert not any(device.stale_reason for device in devices(kept))


def test_renewal_in_the_future_is_looked_at() -> None:
    is_kept, kept = renewed(make.telemetry(age=REPORT_AGE), after(5), after(1))
    assert not is_kept
    assert kept.stale_at == {NAME: after(91)}
