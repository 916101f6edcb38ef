"""The engine's benchmark counts all memory of a fleet and names the trace on which Pack was timed."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def engine() -> Any:
    spec = importlib.util.spec_from_file_location("bench_engine", BENCH / "engine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_memory_per_device_includes_node_states_and_arrays(engine: ModuleType) -> None:
    nodes = engine.fleet_nodes(25)
    devices = [device for node in nodes for device in node.devices]
    states = sum(sys.getsizeof(device) + sys.getsizeof(device.nvlink_peers) for device in devices)
    arrays = engine.Fleet.of(nodes).columns.nbytes
    assert engine.bytes_per_device(25) * len(devices) > states + arrays


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ((None, None), ("--synthetic",)),
        ((Path("t/n.csv"), Path("t/pods.csv")), ("--nodes", "t/n.csv", "--arrivals", "t/pods.csv")),
    ],
)
def test_figures_name_the_trace_of_pack(
    engine: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[Path | None, Path | None],
    options: tuple[str, ...],
) -> None:
    named = "pods.csv" if files[1] else "synthetic"
    asked = []

    def script(name: str, *given: str) -> Any:
        asked.append((name, given))
        if name == "packing.py":
            return [{"decisions_per_cpu_s": 2.0, "decisions_per_s": 1.0}]
        return {key: 1.0 for key in engine.LABELS if key.endswith("of_optimum")}

    timed = [key for key in engine.LABELS if key.endswith(("_per_s", "_ms")) and key != "pack_per_s"]
    monkeypatch.setattr(engine, "script", script)
    few = engine.fleet_nodes(10)
    monkeypatch.setattr(engine, "fleet_nodes", lambda _: few)
    monkeypatch.setattr(engine, "speeds", lambda *_: {key: engine.spread([1.0], [1.0]) for key in timed})
    monkeypatch.setattr(engine, "growth", lambda _: [])
    found = engine.measure(Namespace(quick=True, nodes=10, trace_nodes=files[0], trace_arrivals=files[1]))
    assert found["pack_on"] == named
    assert ("packing.py", options) in asked
    engine.show(found)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Pack", "was", "timed", "on", named] in rows


def test_one_file_of_a_trace_without_the_other_is_rejected(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["engine.py", "--trace-nodes", "n.csv"])
    with pytest.raises(SystemExit) as refused:
        engine.main()
    assert refused.value.code == 2
    assert "--trace-nodes and --trace-arrivals require each other" in capsys.readouterr().err
