from dataclasses import replace
from pathlib import Path

import pytest

from gpufleet_testbed.config import ClusterConfig, Provider
from gpufleet_testbed.local.layout import Layout
from gpufleet_testbed.local.processes.process_id import ProcessId
from gpufleet_testbed.local.state import State, differences

STATE = State(
    config=ClusterConfig(nodes=2, provider=Provider.LOCAL),
    binaries={"etcd": "/one/etcd", "helm": "/one/helm"},
    images={"localhost/x:1": "/images/x.tar"},
    owner=ProcessId(1, 2, "boot"),
    started="2026-01-01T00:00:00Z",
)


def test_state_round_trip(layout: Layout, tmp_path: Path) -> None:
    layout = replace(layout, root=tmp_path)
    for state in (STATE, replace(STATE, owner=None)):
        state.write(layout)
        assert State.read(layout.state) == state
    assert State.read(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("wanted", "binaries", "expected"),
    [
        (STATE.config, STATE.binaries, []),
        (replace(STATE.config, project_image=False), STATE.binaries, []),
        (replace(STATE.config, nodes=3), STATE.binaries, ["nodes is 2, not 3"]),
        (replace(STATE.config, kubernetes="1.34"), STATE.binaries, ["kubernetes is 1.36, not 1.34"]),
        (replace(STATE.config, node_status_seconds=1), STATE.binaries, ["node_status_seconds is 10, not 1"]),
        (STATE.config, {**STATE.binaries, "etcd": "/two/etcd"}, ["different builds of etcd"]),
    ],
)
def test_differences_are_described(wanted: ClusterConfig, binaries: dict[str, str], expected: list[str]) -> None:
    assert differences(wanted, binaries, STATE) == expected
