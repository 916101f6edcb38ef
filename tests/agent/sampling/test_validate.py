import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.devices.base import (
    Facts,
    Number,
    ProcessMemory,
    ProcessUtilization,
    Reading,
    Sample,
    SlowReading,
    ThrottleReason,
)
from gpufleet_agent.sampling.errors import ImplausibleSampleError, InvalidReason
from gpufleet_agent.sampling.validate import validate, validate_facts

UUID = "GPU-1"
GOOD = Reading(
    uuid=UUID,
    memory_total_mib=81559,
    memory_used_mib=412.6,
    utilization_percent=100,
    memory_utilization_percent=0,
    temperature_celsius=-5,
    power_milliwatts=71250.4,
    power_limit_milliwatts=700000,
    memory_temperature_celsius=61,
    sm_clock_mhz=1980,
    memory_clock_mhz=2619,
    memory_reserved_mib=600.5,
    throttle_reasons=frozenset({ThrottleReason.SW_POWER_CAP}),
)
FACTS = Facts(process_count=2, ecc_uncorrected=0, row_remap_pending=True, mig_enabled=False)
NO_NUMBERS = {"uuid", "throttle_reasons", "recovery_action", "unreadable"}
FIELDS = [name for name in Reading.__dataclass_fields__ if name not in NO_NUMBERS]
TEMPERATURES = {"temperature_celsius", "memory_temperature_celsius"}
SLOW_FLAGS = {"row_remap_pending", "row_remap_failed", "page_retirement_pending", "mig_enabled"}
PROCESSES = ("processes", "process_utilization")
SLOW_FIELDS = [name for name in SlowReading.__dataclass_fields__ if name not in {*PROCESSES, *NO_NUMBERS, *SLOW_FLAGS}]
COMPLETE = SlowReading(
    uuid=UUID,
    processes=(ProcessMemory(4711, 5),),
    row_remap_pending=True,
    row_remap_failed=True,
    **dict.fromkeys(SLOW_FIELDS, 7),  # type: ignore[arg-type] # all of these are numbers
)


def with_field(name: str, value: Any) -> Reading:
    return replace(GOOD, **{name: value})


def check(reading: Reading) -> Sample:
    return validate(reading, registered={UUID}, taken_at=12.5, facts=FACTS)


def test_a_good_reading_becomes_whole_numbers() -> None:
    assert check(GOOD) == Sample(
        uuid=UUID,
        taken_at=12.5,
        memory_total_mib=81559,
        memory_used_mib=413,
        utilization_percent=100,
        memory_utilization_percent=0,
        temperature_celsius=-5,
        power_milliwatts=71250,
        power_limit_milliwatts=700000,
        memory_temperature_celsius=61,
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        memory_reserved_mib=600,
        throttle_reasons=frozenset({ThrottleReason.SW_POWER_CAP}),
        process_count=2,
        ecc_uncorrected=0,
        row_remap_pending=True,
        mig_enabled=False,
    )


def test_what_the_hardware_does_not_report_stays_absent() -> None:
    sample = check(Reading(uuid=UUID))
    assert all(getattr(sample, name) is None for name in FIELDS)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [(math.nan, InvalidReason.NOT_A_NUMBER), (math.inf, InvalidReason.INFINITE), (-math.inf, InvalidReason.INFINITE)],
)
def test_no_field_may_be_nan_or_infinite(name: str, value: float, reason: InvalidReason) -> None:
    with pytest.raises(ImplausibleSampleError) as raised:
        check(with_field(name, value))
    assert (raised.value.uuid, raised.value.field, raised.value.reason) == (UUID, name, reason)
    assert name in str(raised.value)
    assert UUID in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        *((name, -1, InvalidReason.NEGATIVE) for name in FIELDS if name not in TEMPERATURES),
        ("utilization_percent", 100.5, InvalidReason.OVER_100_PERCENT),
        ("memory_utilization_percent", 101, InvalidReason.OVER_100_PERCENT),
        *((name, -273.5, InvalidReason.BELOW_ABSOLUTE_ZERO) for name in sorted(TEMPERATURES)),
        *((name, 2**31, InvalidReason.TOO_LARGE) for name in sorted(TEMPERATURES)),
        ("sm_clock_mhz", 100_001, InvalidReason.TOO_LARGE),
        ("power_milliwatts", 2**32 - 1, InvalidReason.TOO_LARGE),
        ("power_limit_milliwatts", 2**31, InvalidReason.TOO_LARGE),
        ("memory_used_mib", 81560, InvalidReason.USED_OVER_TOTAL),
        ("memory_total_mib", 2**41, InvalidReason.TOO_LARGE),
    ],
)
def test_what_can_not_be_true_is_rejected(name: str, value: Number, reason: InvalidReason) -> None:
    with pytest.raises(ImplausibleSampleError) as raised:
        check(with_field(name, value))
    assert (raised.value.field, raised.value.reason) == (name, reason)


def test_unregistered_device_is_rejected() -> None:
    with pytest.raises(ImplausibleSampleError) as raised:
        check(replace(GOOD, uuid="GPU-9"))
    assert (raised.value.uuid, raised.value.reason) == ("GPU-9", InvalidReason.UNKNOWN_DEVICE)


def test_used_memory_without_a_total_is_fine() -> None:
    assert check(Reading(uuid=UUID, memory_used_mib=5)).memory_used_mib == 5


@pytest.mark.parametrize("name", SLOW_FIELDS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, InvalidReason.NOT_A_NUMBER),
        (math.inf, InvalidReason.INFINITE),
        (-1, InvalidReason.NEGATIVE),
        (2**63, None),  # by the field: too large, or over 100 %
    ],
)
def test_impossible_value_of_slow_reading_is_dropped_alone(
    name: str, value: Number, reason: InvalidReason | None
) -> None:
    rest = replace(COMPLETE, **{name: None})  # type: ignore[arg-type] # of a number
    reading = replace(COMPLETE, **{name: value})  # type: ignore[arg-type] # of a number
    facts, (error,) = validate_facts(reading, registered={UUID})
    too_much = InvalidReason.OVER_100_PERCENT if name.endswith("_percent") else InvalidReason.TOO_LARGE
    assert (error.uuid, error.field, error.reason) == (UUID, name, reason or too_much)
    assert (facts, ()) == validate_facts(rest, registered={UUID}), "the other values are kept"


@pytest.mark.parametrize("size", [math.nan, math.inf, -1, 2**30, 2**63])
def test_impossible_memory_of_a_process_keeps_list_and_ecc_errors(size: Number) -> None:
    processes = (ProcessMemory(1, 5), ProcessMemory(2, size))
    reading = SlowReading(uuid=UUID, process_count=2, processes=processes, ecc_uncorrected=5, row_remap_failed=True)
    facts, (error,) = validate_facts(reading, registered={UUID})
    assert error.field == "processes"
    assert facts.processes == (ProcessMemory(1, 5), ProcessMemory(2, None))
    assert (facts.process_count, facts.ecc_uncorrected, facts.row_remap_failed) == (2, 5, True)


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 3_145_728_000, 2**32 - 1])
def test_implausible_pid_makes_the_process_list_unknown(pid: int) -> None:
    processes = (ProcessMemory(4711, 5), ProcessMemory(pid, 5))
    reading = SlowReading(uuid=UUID, process_count=2, processes=processes, ecc_uncorrected=5)
    facts, (error,) = validate_facts(reading, registered={UUID})
    assert (error.field, error.reason) == ("processes", InvalidReason.IMPLAUSIBLE_PID)
    assert f"{pid} is not a PID" in str(error)
    assert (facts.processes, facts.process_count, facts.ecc_uncorrected) == (None, None, 5)


@pytest.mark.parametrize("percent", [math.nan, -1, 101, 2**32 - 1])
def test_impossible_utilization_of_a_process_is_dropped_alone(percent: Number) -> None:
    parts = (ProcessUtilization(1, 30.4), ProcessUtilization(2, percent), ProcessUtilization(3, None))
    reading = SlowReading(uuid=UUID, processes=(), process_utilization=parts, ecc_uncorrected=5)
    facts, (error,) = validate_facts(reading, registered={UUID})
    assert error.field == "process_utilization"
    assert facts.process_utilization == (
        ProcessUtilization(1, 30),
        ProcessUtilization(2, None),
        ProcessUtilization(3, None),
    )
    assert facts.ecc_uncorrected == 5


def test_memory_of_processes_becomes_whole_numbers() -> None:
    reading = SlowReading(uuid=UUID, processes=(ProcessMemory(1, 5.4), ProcessMemory(2**22, None)))
    facts, _ = validate_facts(reading, registered={UUID})
    assert facts.processes == (ProcessMemory(1, 5), ProcessMemory(2**22, None))


def test_facts_have_the_values_of_the_slow_reading() -> None:
    values: dict[str, Any] = dict.fromkeys(SLOW_FIELDS, 7) | dict.fromkeys(SLOW_FLAGS, True)
    assert validate_facts(SlowReading(uuid=UUID, **values), registered={UUID}) == (Facts(**values), ())
    assert validate_facts(SlowReading(uuid=UUID), registered={UUID}) == (Facts(), ())
    with pytest.raises(ImplausibleSampleError) as raised:
        validate_facts(SlowReading(uuid="GPU-9"), registered={UUID})
    assert (raised.value.uuid, raised.value.reason) == ("GPU-9", InvalidReason.UNKNOWN_DEVICE)


@given(st.builds(Reading, uuid=st.just(UUID), **{name: st.none() | st.integers() | st.floats() for name in FIELDS}))
def test_any_valid_sample_is_within_the_ranges_of_the_api(reading: Reading) -> None:
    try:
        sample = check(reading)
    except ImplausibleSampleError as error:
        assert error.field in FIELDS  # noqa: PT017 - rejecting is one of the two right answers
        return
    for name in FIELDS:
        value = getattr(sample, name)
        assert (value is None) == (getattr(reading, name) is None)
        if value is None:
            continue
        assert isinstance(value, int)
        low, high = (-273, 1000) if name in TEMPERATURES else (0, 100 if "utilization" in name else 2**24)
        high = 2**31 - 1 if name.endswith("milliwatts") else high
        assert low <= value <= high
    if sample.memory_used_mib is not None and sample.memory_total_mib is not None:
        assert sample.memory_used_mib <= sample.memory_total_mib
