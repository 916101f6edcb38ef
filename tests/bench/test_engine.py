"""The engine's benchmark says what it measures: all of a fleet's memory, and what Pack was timed on."""

import importlib.util
import sys
from pathlib import Path
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


def test_memory_per_device_holds_the_node_states_beside_the_arrays(engine: Any) -> None:
    nodes = engine.fleet_nodes(25)
    devices = [device for node in nodes for device in node.devices]
    states = sum(sys.getsizeof(device) + sys.getsizeof(device.nvlink_peers) for device in devices)
    arrays = engine.Fleet.of(nodes).columns.nbytes
    assert engine.bytes_per_device(25) * len(devices) > states + arrays
