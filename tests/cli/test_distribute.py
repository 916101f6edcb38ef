"""Dividing items, by numbers given by hand or by a fleet's devices."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from gpufleet_cli.app import app


def test_bare_numbers_give_exactly_the_documented_json(gpufleet: Any) -> None:
    done = gpufleet(
        "distribute", "--items", "7", "--capacity", "a=1", "--capacity", "b=2.5", "--max", "a=2", "-o", "json"
    )
    assert done.code == 0
    assert done.out == '{"shares": {"a": 2, "b": 5}, "ranges": {"a": [0, 2], "b": [2, 7]}, "unassigned": 0}\n'
    assert done.err == ""


def test_a_maximum_for_everyone_and_one_of_its_own(gpufleet: Any) -> None:
    arguments = ["--capacity", "a=1", "--capacity", "b=1", "--capacity", "c=0", "--max", "2", "--max", "b=3"]
    done = gpufleet("distribute", "--items", "9", *arguments, "-o", "json")
    assert done.json == {
        "shares": {"a": 2, "b": 3, "c": 0},
        "ranges": {"a": [0, 2], "b": [2, 5], "c": [5, 5]},
        "unassigned": 4,
    }


def test_the_table_has_a_row_for_each_and_the_sum(gpufleet: Any) -> None:
    done = gpufleet("distribute", "--items", "4", "--capacity", "a=1", "--capacity", "b=2.5", "--max", "b=2")
    assert [line.split() for line in done.out.splitlines()] == [
        ["NAME", "CAPACITY", "ITEMS", "RANGE"],
        ["a", "1", "2", "[0,", "2)"],
        ["b", "2.5", "2", "[2,", "4)"],
        ["4", "items", "assigned,", "0", "unassigned"],
    ]


def test_a_name_may_hold_an_equals_sign(gpufleet: Any) -> None:
    done = gpufleet("distribute", "--items", "1", "--capacity", "zone=a=1", "-o", "json")
    assert done.json["shares"] == {"zone=a": 1}


def test_decimal_fractions_are_what_they_say(gpufleet: Any) -> None:
    """The floats next to them would leave the second less than a third."""
    named = ["--capacity", "a=0.3", "--capacity", "b=0.2", "--capacity", "c=0.1"]
    done = gpufleet("distribute", "--items", "3", *named, "-o", "json")
    assert done.json["shares"] == {"a": 2, "b": 1, "c": 0}
    table = gpufleet("distribute", "--items", "3", "--capacity", "a=0.30", "--capacity", "b=3e-1")
    assert [line.split()[:3] for line in table.out.splitlines()[1:3]] == [["a", "0.30", "2"], ["b", "3e-1", "1"]]


@pytest.mark.parametrize("tiny", ["1e-999999999", "0e999999999", "0." + "0" * 5000 + "1"])
def test_an_exponent_of_any_size_costs_nothing(tiny: str, gpufleet: Any) -> None:
    done = gpufleet("distribute", "--items", "3", "--capacity", "a=1", "--capacity", f"b={tiny}", "-o", "json")
    assert done.json["shares"] == {"a": 3, "b": 0}
    many = gpufleet("distribute", "--items", "3", "--capacity", f"a=1.{'0' * 5000}1", "--capacity", "b=2", "-o", "json")
    assert many.json["shares"] == {"a": 1, "b": 2}


@settings(max_examples=25, deadline=None)
@given(
    items=st.integers(0, 10**12),
    capacities=st.lists(st.floats(0, 1e9, allow_nan=False), min_size=1, max_size=6).filter(any),
    maximum=st.none() | st.integers(0, 10**9),
)
def test_shares_and_unassigned_add_up_and_ranges_touch(
    items: int, capacities: list[float], maximum: int | None
) -> None:
    named = [f"--capacity=r{i}={c!r}" for i, c in enumerate(capacities)]
    limit = [] if maximum is None else [f"--max={maximum}"]
    result = CliRunner().invoke(app, ["distribute", f"--items={items}", *named, *limit, "-o", "json"])
    assert result.exit_code == 0
    divided = json.loads(result.stdout)
    assert sum(divided["shares"].values()) + divided["unassigned"] == items
    end = 0
    for name, (first, last) in divided["ranges"].items():
        assert first == end
        assert last - first == divided["shares"][name]
        end = last


def test_a_fleets_usable_devices_are_the_receivers(files: Any, gpufleet: Any) -> None:
    fleet = files.write(
        files.node(
            "node-1",
            files.device("node-1", 0, memoryUsedMiB=20000),
            files.device("node-1", 1, health={"state": "Unhealthy"}),
            files.device("node-1", 2, memoryTotalMiB=40000, memoryUsedMiB=20000),
            files.device("node-1", 3, memoryTotalMiB=None, memoryUsedMiB=None),
        )
    )
    by_free = gpufleet("distribute", "--items", "8", "--fleet", fleet, "-o", "json")
    assert by_free.json["shares"] == {"GPU-node-1-0": 6, "GPU-node-1-2": 2, "GPU-node-1-3": 0}
    assert "GPUs that can't be given to anybody take no part: 1 unhealthy" in by_free.notes
    by_total = gpufleet("distribute", "--items", "6", "--fleet", fleet, "--by", "TotalMemory", "-o", "json")
    assert by_total.json["shares"] == {"GPU-node-1-0": 4, "GPU-node-1-2": 2, "GPU-node-1-3": 0}
    uniform = gpufleet("distribute", "--items", "7", "--fleet", fleet, "--by", "Uniform", "-o", "json")
    assert uniform.json["shares"] == {"GPU-node-1-0": 3, "GPU-node-1-2": 2, "GPU-node-1-3": 2}


BAD = [
    (["--items", "7"], "give either --capacity NAME=NUMBER, once or more, or --fleet FILE"),
    (["--items", "x", "--capacity", "a=1"], "--items x: must be a whole number"),
    (["--items", "nan", "--capacity", "a=1"], "--items nan: must be a whole number"),
    (["--items", "-1", "--capacity", "a=1"], "--items -1: must be 0 or more"),
    (["--items", "7", "--capacity", "a"], "--capacity a: must be NAME=NUMBER"),
    (["--items", "7", "--capacity", "=1"], "--capacity =1: must be NAME=NUMBER"),
    (["--items", "7", "--capacity", "a=x"], "--capacity a=x: must be a number"),
    (["--items", "7", "--capacity", "a=nan"], "the capacity of a is nan, must be finite and 0 or more"),
    (["--items", "7", "--capacity", "a=inf"], "the capacity of a is inf, must be finite and 0 or more"),
    (["--items", "7", "--capacity", "a=1e999999999"], "the capacity of a is inf, must be finite and 0 or more"),
    (["--items", "7", "--capacity", "a=1/3"], "--capacity a=1/3: must be a number"),
    (["--items", "7", "--capacity", "a=-1"], "the capacity of a is -1.0, must be finite and 0 or more"),
    (["--items", "7", "--capacity", "a=0", "--capacity", "b=0"], "all capacities are 0"),
    (["--items", "7", "--capacity", "a=1", "--capacity", "a=2"], "--capacity a=2: a stands twice"),
    (["--items", "7", "--capacity", "a=1", "--max", "b=2"], "a maximum is given for b, which has no capacity"),
    (["--items", "7", "--capacity", "a=1", "--max", "a=-2"], "--max a=-2: must be 0 or more"),
    (["--items", "7", "--capacity", "a=1", "--max", "a=1.5"], "--max a=1.5: must be a whole number"),
    (["--items", "7", "--capacity", "a=1", "--max", "a=1", "--max", "a=2"], "--max a=2: a stands twice"),
    (["--items", "7", "--capacity", "a=1", "--max", "1", "--max", "2"], "--max 2: the maximum for everyone stands"),
    (["--items", "7", "--capacity", "a=1", "--by", "Uniform"], "--by, --now and --stale-after belong to --fleet"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_input_is_named_with_exit_code_2(arguments: list[str], message: str, gpufleet: Any) -> None:
    done = gpufleet("distribute", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")
    assert done.err.count("\n") == 1


def test_a_fleet_without_a_usable_device_has_nobody_to_divide_among(files: Any, gpufleet: Any) -> None:
    fleet = files.write(files.idle("node-1", 1, health={"state": "Unhealthy"}))
    done = gpufleet("distribute", "--items", "7", "--fleet", fleet)
    assert done.code == 2
    assert "no GPU of the fleet is free and healthy" in done.err
    unknown = gpufleet("distribute", "--items", "7", "--fleet", fleet, "--by", "Speed")
    assert unknown.code == 2
    assert "'Speed'" in unknown.err
