"""The demo's machines as the simulated driver gets them."""

import sys
from pathlib import Path

import pytest

from gpufleet_e2e.demo.driver import SimulatedDriver, python, simulated
from gpufleet_e2e.demo.nodes import NODE_PROFILES
from gpufleet_simgpu.files import STATE, read_state, write_state


@pytest.fixture
def driver(tmp_path: Path) -> SimulatedDriver:
    """A driver folder with a state and no library: nothing here loads it."""
    write_state(tmp_path / STATE, simulated("node-1", NODE_PROFILES[0]))
    return SimulatedDriver({"node-1": tmp_path})


def test_each_node_has_eight_different_gpus() -> None:
    assert len({machine.preset for machine in NODE_PROFILES}) == 2
    for machine in NODE_PROFILES:
        assert len(set(machine.loads)) == 8
        assert len({load.temperature_celsius for load in machine.loads}) == 8


def test_the_loads_fit_the_models() -> None:
    for machine in NODE_PROFILES:
        for gpu in simulated("node-1", machine).gpus:
            assert gpu.memory_total_mib is not None
            assert gpu.memory_used_mib is not None
            assert gpu.memory_reserved_mib is not None
            assert 0 < gpu.memory_used_mib < gpu.memory_total_mib - gpu.memory_reserved_mib
            assert gpu.power_milliwatts is not None
            assert gpu.power_limit_milliwatts is not None
            assert 0 < gpu.power_milliwatts < gpu.power_limit_milliwatts


def test_two_nodes_share_no_uuid() -> None:
    uuids = [gpu.uuid for node in ("node-1", "node-2") for gpu in simulated(node, NODE_PROFILES[0]).gpus]
    assert len(set(uuids)) == 16


def test_heat_changes_one_gpu_and_leaves_the_others(driver: SimulatedDriver, tmp_path: Path) -> None:
    before = read_state(tmp_path / STATE)
    hot = before.gpus[3]
    driver.set_temperature("node-1", hot.uuid, 95)
    after = read_state(tmp_path / STATE)
    assert driver.temperature("node-1", hot.uuid) == 95
    assert [gpu for gpu in after.gpus if gpu.uuid != hot.uuid] == [gpu for gpu in before.gpus if gpu.uuid != hot.uuid]


def test_command_names_the_gpu_by_its_index(driver: SimulatedDriver, tmp_path: Path) -> None:
    uuid = read_state(tmp_path / STATE).gpus[3].uuid
    words = driver.command("node-1", uuid, 95).split()
    assert words[1:] == ["-m", "gpufleet_simgpu", "set", str(tmp_path), "3", "temperature_celsius=95"]


def test_an_unknown_gpu_is_an_error(driver: SimulatedDriver) -> None:
    with pytest.raises(ValueError, match="no simulated GPU GPU-x"):
        driver.set_temperature("node-1", "GPU-x", 95)


def test_the_interpreter_is_named_as_seen_from_here() -> None:
    assert python(str(Path.cwd() / ".venv" / "bin" / "python")) == ".venv/bin/python"
    assert python("/usr/bin/python3") == "/usr/bin/python3"
    assert python() in sys.executable
