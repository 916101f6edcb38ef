"""Items divided by named capacities, or among a fleet's devices."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet_testing.cli.files import ObjectFiles, gpu, idle_node, telemetry
from gpufleet_testing.cli.runner import run_cli


def test_named_capacities_give_the_documented_json() -> None:
    done = run_cli(
        "distribute", "--items", "7", "--capacity", "a=1", "--capacity", "b=2.5", "--max", "a=2", "-o", "json"
    )
    assert done.code == 0
    assert done.out == '{"items": {"a": 2, "b": 5}, "ranges": {"a": [0, 2], "b": [2, 7]}, "unassigned": 0}\n'
    assert done.err == ""


def test_maximum_of_one_receiver_precedes_that_of_all() -> None:
    arguments = ["--capacity", "a=1", "--capacity", "b=1", "--capacity", "c=0", "--max", "2", "--max", "b=3"]
    done = run_cli("distribute", "--items", "9", *arguments, "-o", "json")
    assert done.json == {
        "items": {"a": 2, "b": 3, "c": 0},
        "ranges": {"a": [0, 2], "b": [2, 5], "c": [5, 5]},
        "unassigned": 4,
    }


def test_table_has_a_row_per_receiver_and_the_sum() -> None:
    done = run_cli("distribute", "--items", "4", "--capacity", "a=1", "--capacity", "b=2.5", "--max", "b=2")
    assert [line.split() for line in done.out.splitlines()] == [
        ["NAME", "CAPACITY", "ITEMS", "RANGE"],
        ["a", "1", "2", "[0,", "2)"],
        ["b", "2.5", "2", "[2,", "4)"],
        ["4", "items", "assigned,", "0", "unassigned"],
    ]


def test_name_may_contain_an_equals_sign() -> None:
    done = run_cli("distribute", "--items", "1", "--capacity", "zone=a=1", "-o", "json")
    assert done.json["items"] == {"zone=a": 1}


def test_decimal_fractions_are_exact() -> None:
    """The floats next to them would leave the second less than a third."""
    named = ["--capacity", "a=0.3", "--capacity", "b=0.2", "--capacity", "c=0.1"]
    done = run_cli("distribute", "--items", "3", *named, "-o", "json")
    assert done.json["items"] == {"a": 2, "b": 1, "c": 0}
    table = run_cli("distribute", "--items", "3", "--capacity", "a=0.30", "--capacity", "b=3e-1")
    assert [line.split()[:3] for line in table.out.splitlines()[1:3]] == [["a", "0.30", "2"], ["b", "3e-1", "1"]]


@pytest.mark.parametrize("tiny", ["1e-999999999", "0e999999999", "0." + "0" * 5000 + "1"])
def test_huge_exponent_is_not_expanded(tiny: str) -> None:
    done = run_cli("distribute", "--items", "3", "--capacity", "a=1", "--capacity", f"b={tiny}", "-o", "json")
    assert done.json["items"] == {"a": 3, "b": 0}
    many = run_cli("distribute", "--items", "3", "--capacity", f"a=1.{'0' * 5000}1", "--capacity", "b=2", "-o", "json")
    assert many.json["items"] == {"a": 1, "b": 2}


@settings(max_examples=25, deadline=None)
@given(
    items=st.integers(0, 10**12),
    capacities=st.lists(st.floats(0, 1e9, allow_nan=False), min_size=1, max_size=6).filter(any),
    maximum=st.none() | st.integers(0, 10**9),
)
def test_items_add_up_and_ranges_are_contiguous(items: int, capacities: list[float], maximum: int | None) -> None:
    named = [f"--capacity=r{i}={c!r}" for i, c in enumerate(capacities)]
    limit = [] if maximum is None else [f"--max={maximum}"]
    result = run_cli("distribute", f"--items={items}", *named, *limit, "-o", "json")
    assert result.code == 0
    divided = result.json
    assert sum(divided["items"].values()) + divided["unassigned"] == items
    end = 0
    for name, (first, last) in divided["ranges"].items():
        assert first == end
        assert last - first == divided["items"][name]
        end = last


def test_usable_devices_of_a_fleet_are_the_receivers(files: ObjectFiles) -> None:
    fleet = files.write(
        telemetry(
            "node-1",
            gpu("node-1", 0, memoryUsedMiB=20000),
            gpu("node-1", 1, health={"state": "Unhealthy"}),
            gpu("node-1", 2, memoryTotalMiB=40000, memoryUsedMiB=20000),
            gpu("node-1", 3, memoryTotalMiB=None, memoryUsedMiB=None),
        )
    )
    by_free = run_cli("distribute", "--items", "8", "--from", fleet, "-o", "json")
    assert by_free.json["items"] == {"GPU-node-1-0": 6, "GPU-node-1-2": 2, "GPU-node-1-3": 0}
    assert "GPUs left out: 1 unhealthy" in by_free.notes
    by_total = run_cli("distribute", "--items", "6", "--from", fleet, "--by", "TotalMemory", "-o", "json")
    assert by_total.json["items"] == {"GPU-node-1-0": 4, "GPU-node-1-2": 2, "GPU-node-1-3": 0}
    uniform = run_cli("distribute", "--items", "7", "--from", fleet, "--by", "Uniform", "-o", "json")
    assert uniform.json["items"] == {"GPU-node-1-0": 3, "GPU-node-1-2": 2, "GPU-node-1-3": 2}


BAD = [
    (["--items", "7", "--capacity", "a=1", "--from", "f"], "--capacity and --from are mutually exclusive"),
    (["--items", "7", "--by", "x"], "--by x: must be one of FreeMemory, TotalMemory, Uniform"),
    (["--items", "x", "--capacity", "a=1"], "--items x: must be an integer"),
    (["--items", "nan", "--capacity", "a=1"], "--items nan: must be an integer"),
    (["--items", "-1", "--capacity", "a=1"], "--items -1: must be greater than or equal to 0"),
    (["--items", "7", "--capacity", "a"], "--capacity a: must be NAME=NUMBER"),
    (["--items", "7", "--capacity", "=1"], "--capacity =1: must be NAME=NUMBER"),
    (["--items", "7", "--capacity", "a=x"], "--capacity a=x: must be a number"),
    (["--items", "7", "--capacity", "a=nan"], "the capacity of a is nan, must be finite and 0 or more"),
    (["--items", "7", "--capacity", "a=inf"], "the capacity of a is inf, must be finite and 0 or more"),
    (["--items", "7", "--capacity", "a=1e999999999"], "the capacity of a is inf, must be finite and 0 or more"),
    (["--items", "7", "--capacity", "a=1/3"], "--capacity a=1/3: must be a number"),
    (["--items", "7", "--capacity", "a=-1"], "the capacity of a is -1.0, must be finite and 0 or more"),
    (["--items", "7", "--capacity", "a=0", "--capacity", "b=0"], "all capacities are 0"),
    (["--items", "7", "--capacity", "a=1", "--capacity", "a=2"], "--capacity a=2: duplicate name a"),
    (["--items", "7", "--capacity", "a=1", "--max", "b=2"], "a maximum is given for b, which has no capacity"),
    (["--items", "7", "--capacity", "a=1", "--max", "a=-2"], "--max a=-2: must be greater than or equal to 0"),
    (["--items", "7", "--capacity", "a=1", "--max", "a=1.5"], "--max a=1.5: must be an integer"),
    (["--items", "7", "--capacity", "a=1", "--max", "a=1", "--max", "a=2"], "--max a=2: duplicate name a"),
    (
        ["--items", "7", "--capacity", "a=1", "--max", "1", "--max", "2"],
        "--max 2: duplicate maximum for every",
    ),
    (
        ["--items", "7", "--capacity", "a=1", "--by", "Uniform"],
        "--by, --now and --stale-after may not be given with --capacity",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_input_is_reported_with_exit_code_2(arguments: list[str], message: str) -> None:
    done = run_cli("distribute", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")
    assert done.err.count("\n") == 1


def test_fleet_without_a_usable_device_is_bad_input(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 1, health={"state": "Unhealthy"}))
    done = run_cli("distribute", "--items", "7", "--from", fleet)
    assert done.code == 2
    assert "no free, healthy GPU in the fleet" in done.err
    unknown = run_cli("distribute", "--items", "7", "--from", fleet, "--by", "Speed")
    assert unknown.code == 2
    assert "--by Speed: must be one of" in unknown.err
