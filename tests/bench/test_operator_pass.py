"""The benchmark of passes runs on a small fleet and prints the values that are compared from release to release."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
TIMES = ("pod_change_ms", "telemetry_change_ms", "renewal_ms", "place_ms")


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_operator_pass", BENCH / "operator_pass.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_small_fleet_has_all_values(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--one", "3x6", "--repeats", "2", "--waiting", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    others = {"first_pass_s", "recovery_s", "rss_mib", "spread", "from_scratch", "from_scratch_spread"}
    assert {*TIMES, *others} == found.keys()
    for name in TIMES:
        spread = found["spread"][name]
        assert 0 < spread["min"] <= spread["median"] <= spread["max"]
        assert found[name] == spread["median"]
        assert found["from_scratch"][name] > 0


def test_pass_after_one_pod_change_writes_its_status_only(bench: ModuleType) -> None:
    found = bench.Bench(3, 6, 4)
    found.settle()
    found.change_pod(2)
    _, actions = found.timed_pass()
    assert [status.name for status in actions.statuses] == ["job-000002"]
    assert not actions.reserves
    assert len(actions.unplaced) == 4


@pytest.mark.parametrize("size", ["", "12", "0x1", "1x9", "ax2", "3x-1"])
def test_size_that_is_impossible_is_rejected(bench: ModuleType, size: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        bench.parsed_size(size)
