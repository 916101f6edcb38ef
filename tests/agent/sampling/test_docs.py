"""The tables of device faults and NVML return codes in docs are played through, row by row."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pynvml
import pytest

from gpufleet_agent.devices.base import DeviceError, HardwareUnavailableError, ProcessMustRestartError, Recovery
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, NOT_NOW, device_error, opening_error
from gpufleet_agent.devices.xids.policy import FAULTS, NO_FAULT, xid_event
from gpufleet_agent.devices.xids.table import XIDS
from gpufleet_agent.sampling.conditions.recovery_actions import ALL_THRESHOLDS
from gpufleet_agent.sampling.conditions.thresholds import SLOW_THRESHOLDS
from gpufleet_agent.sampling.device_sampler import fault_of
from gpufleet_agent.sampling.health import READ_FAULTS, DeviceHealth, HealthPolicy, ReadFault
from gpufleet_agent.sampling.timing import Timing

DOCS = Path(__file__).parents[3] / "docs"
PAGE = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("concepts/health.md", "reference/agent.md"))


def table(first_column: str) -> list[list[str]]:
    """The rows of the table whose header begins with these words."""
    rows: list[list[str]] = []
    lines = iter(PAGE.splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            next(lines)
            for row in lines:
                if not row.startswith("|"):
                    return rows
                rows.append([cell.strip().strip("`") for cell in row.strip("|").split("|")])
    raise AssertionError(f"no table {first_column!r}")


def number(cell: str) -> int:
    return int(re.match(r"\d+", cell)[0])  # type: ignore[index] # no number: the test fails


def numbers(cell: str) -> set[int]:
    return {int(digits) for digits in re.findall(r"\d+", cell)}


ROWS = table("code")


def steps(health: DeviceHealth, code: str, seen_in: str, *, bad: bool) -> Iterator[None]:
    """One bad, or good, answer of the kind that the row names after the other."""
    second = 0.0
    while True:
        second += 1
        if seen_in == "read":
            if bad:
                health.failed_read(ReadFault(code), "broken", second)
            else:
                health.good_read(second, second)
        else:
            health.observe([(ALL_THRESHOLDS[code], int(bad))], second)
        yield


def stands(health: DeviceHealth, code: str, kind: str) -> Recovery | None:
    snapshot = health.snapshot()
    assert (snapshot.state.value == "Unhealthy") == bool(snapshot.reasons)
    reasons = {"fault": snapshot.reasons, "warning": snapshot.warnings}[kind]
    return next((reason.recovery for reason in reasons if reason.code == code), None)


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] != "event"], ids=lambda row: row[0])
def test_condition_begins_and_ends_as_documented(row: list[str]) -> None:
    code, kind, seen_in, after, gone_after, recovery = row
    health = DeviceHealth(HealthPolicy())
    now = partial(stands, health, code, kind)
    worse, better = (steps(health, code, seen_in, bad=bad) for bad in (True, False))
    for _ in range(number(after)):
        assert now() is None
        next(worse)
    assert now() is Recovery(recovery)
    for _ in range(number(gone_after)):
        assert now() is Recovery(recovery)
        next(better)
    assert now() is None
    assert health.snapshot().state.value == "Healthy"


def test_every_condition_has_its_row() -> None:
    rows = {code: (kind, seen_in) for code, kind, seen_in, *_ in ROWS}
    slow = {level.code for level in SLOW_THRESHOLDS}
    expected = dict.fromkeys(READ_FAULTS, ("fault", "read")) | {
        "XidError": ("fault", "event"),
        "GpuUnavailable": ("fault", "event"),
        "XidWithoutAction": ("warning", "event"),
    }
    for level in ALL_THRESHOLDS.values():
        kind = "fault" if level.fault else "warning"
        expected[level.code] = (kind, "slow reading" if level.code in slow else "reading")
    assert rows == expected
    (deadline,) = numbers(next(row[3] for row in ROWS if row[0] == "Unresponsive")) - {1}
    assert deadline == Timing().deadline
    assert f"not repeated for {HealthPolicy().quiet_seconds:.0f} s" in " ".join(PAGE.split())
    timing = Timing()
    assert f"older than {3 * timing.slow + timing.sample:.0f} s" in " ".join(PAGE.split())


def test_each_action_of_the_catalog_has_the_effect_of_its_row() -> None:
    rows = {frozenset(re.findall(r"[A-Z][A-Z0-9_]+", actions)): effect for actions, effect in table("immediate action")}
    unknown = {action for _, action in XIDS.values()} - {""} - NO_FAULT - FAULTS.keys()
    expected = {NO_FAULT: "counted", frozenset(unknown): "warning `XidWithoutAction"}
    for recovery in set(FAULTS.values()):
        expected[frozenset(action for action, ends in FAULTS.items() if ends is recovery)] = f"fault, {recovery}"
    assert rows == expected
    for code in (*XIDS, 999):
        event = xid_event("GPU-0", code)
        _, action = XIDS.get(code, ("", ""))
        assert event.fault == (action in FAULTS)
        assert event.warning == (None if action in NO_FAULT or action in FAULTS else "XidWithoutAction")
        assert event.message.startswith(f"XID {code}")


def meaning(code: int) -> str:
    """What a code of NVML comes to, in the words of the table."""
    if code in NEVER_SUPPORTED:
        return "absent for good"
    if code in NOT_NOW:
        return "absent this time"
    match device_error("GPU-0", "power", pynvml.NVMLError(code)):
        case ProcessMustRestartError():
            return "the process ends"
        case HardwareUnavailableError():
            return ReadFault.DRIVER_UNAVAILABLE.value
        case DeviceError() as error:
            return fault_of(error).value
        case error:
            raise AssertionError(error)


def test_each_nvml_code_has_the_documented_effect() -> None:
    rows = table("NVML return code")
    anything_else = rows.pop()
    assert anything_else == ["anything else", "`ReadFailed`".strip("`")]
    reported: dict[int, str] = {}
    for codes, then in rows:
        reported |= dict.fromkeys(numbers(codes), then)
    assert {9, 15, 16, 18, 999} <= set(reported)
    for code in (*range(1, 31), 999):
        words = reported.get(code, "ReadFailed").removeprefix("`")
        assert words.startswith(meaning(code)), f"{code}: {words}"
        opening = type(opening_error(pynvml.NVMLError(code)))
        assert issubclass(opening, ProcessMustRestartError if code == 18 else HardwareUnavailableError)
