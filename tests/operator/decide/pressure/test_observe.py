"""Samples in a row in which a shared device runs out of memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from gpufleet_common import timestamps
from gpufleet_operator.decide.pressure.observe import PRESSURE_SAMPLES, is_due, observe_pressure
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import DevicePressure, Limits, PassState
from gpufleet_testing.operator import make

FULL, NOT_FULL = 99_000, 98_000
SHARE = make.shared_assignment("a", 50_000)
LIMITS = Limits()
STEP = LIMITS.pressure_sample_interval


def snapshot(used_mib: int, seconds: float, state: PassState, *, shared: bool = True, age: float = 1.0) -> Snapshot:
    """A device of 100,000 usable MiB, sampled so many seconds after `NOW`."""
    telemetry = make.telemetry(
        devices=1,
        held={"GPU-1-0": [SHARE]} if shared else None,
        age=age,
        memoryTotalMiB=100_500,
        memoryReservedMiB=500,
        memoryUsedMiB=used_mib,
        sampleTime=timestamps.micros(make.NOW + timedelta(seconds=seconds)),
    )
    return make.snapshot(telemetry, state=state, limits=LIMITS)


def after(course: Sequence[tuple[float, int]]) -> tuple[DevicePressure | None, bool]:
    """The device after these samples (seconds, MiB), and whether the last one makes a move due."""
    state, due, found = PassState(), False, None
    for seconds, used_mib in course:
        seen = snapshot(used_mib, seconds, state)
        pressure = observe_pressure(seen)
        found = pressure.get("node-1", {}).get("GPU-1-0")
        due = found is not None and is_due(seen, "node-1", "GPU-1-0", found)
        state = replace(state, pressure=pressure)
    return found, due


SECONDS = STEP.total_seconds()
IN_A_ROW = [(number * SECONDS, FULL) for number in range(PRESSURE_SAMPLES)]


@pytest.mark.parametrize(
    ("course", "samples", "due"),
    [
        pytest.param(IN_A_ROW[:1], 1, False, id="one sample"),
        pytest.param(IN_A_ROW[:-1], PRESSURE_SAMPLES - 1, False, id="one too few"),
        pytest.param(IN_A_ROW, PRESSURE_SAMPLES, True, id="enough"),
        pytest.param([*IN_A_ROW, IN_A_ROW[-1]], PRESSURE_SAMPLES, False, id="the same sample again"),
        pytest.param([(n, FULL) for n in range(9)], 1, False, id="samples close together are one"),
        pytest.param([*IN_A_ROW[:-1], (3 * SECONDS - 1, NOT_FULL)], 0, False, id="a sample that is not full"),
        pytest.param([(0, NOT_FULL)], 0, False, id="exactly 98 percent"),
    ],
)
def test_pressure_is_counted_in_samples_in_a_row(
    course: Sequence[tuple[float, int]], samples: int, *, due: bool
) -> None:
    found, is_due_now = after(course)

    assert (0 if found is None else found.samples, is_due_now) == (samples, due)


def test_device_that_is_not_shared_is_under_no_pressure() -> None:
    assert observe_pressure(snapshot(FULL, 0, PassState(), shared=False)) == {}


def test_stale_telemetry_changes_nothing() -> None:
    before = PassState(pressure={"node-1": {"GPU-1-0": DevicePressure(3, timestamps.micros(make.NOW))}})
    stale = snapshot(FULL, SECONDS, before, age=LIMITS.stale_after.total_seconds() + 1)

    assert observe_pressure(stale) == before.pressure


@pytest.mark.parametrize(("seconds", "due"), [(59, False), (60, True)])
def test_device_rests_after_an_attempt(seconds: float, *, due: bool) -> None:
    tried = make.NOW - timedelta(seconds=seconds)
    before = DevicePressure(PRESSURE_SAMPLES, timestamps.micros(make.NOW - STEP), tried)
    seen = snapshot(FULL, 0, PassState(pressure={"node-1": {"GPU-1-0": before}}))
    pressure = observe_pressure(seen)["node-1"]["GPU-1-0"]

    assert is_due(seen, "node-1", "GPU-1-0", pressure) is due
