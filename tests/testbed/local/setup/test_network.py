import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from gpufleet_testbed.errors import ConflictError
from gpufleet_testbed.local.layout import Layout
from gpufleet_testbed.local.setup import network
from gpufleet_testing.testbed import FakeRunner

NETWORK = IPv4Network("10.244.0.0/16")


@pytest.mark.parametrize(
    ("route", "taken"),
    [
        ({"dst": "default", "dev": "eth0"}, False),
        ({"dst": "192.168.1.0/24", "dev": "eth0"}, False),
        ({"dst": "10.244.3.0/24", "dev": "cni0"}, True),
        ({"dst": "10.0.0.0/8", "dev": "tun0"}, True),
        ({"dst": "10.244.0.7", "dev": "eth1"}, True),
        ({"dst": "10.244.0.0/16", "dev": "gf0"}, False),
    ],
)
def test_addresses_in_use_are_found(route: dict[str, Any], taken: bool) -> None:
    problem = network.overlap(NETWORK, [route], "gf0")
    assert (problem is not None) is taken
    if problem:
        assert route["dst"] in problem.what
        assert route["dev"] in problem.what
        assert "GPUFLEET_CLUSTER_NETWORK" in problem.fix


def test_both_ends_get_addresses_and_the_machine_a_route(layout: Layout, runner: FakeRunner) -> None:
    network.connect(layout, 42, runner)
    assert runner.calls[0] == ["ip", "link", "add", "gf0", "type", "veth", "peer", "name", "gf0", "netns", "42"]
    batches = [text for text in runner.inputs if text]
    assert "address add 10.244.0.2/24 dev gf0" in batches[0]
    assert "address add 10.244.0.12/24 dev gf0" in batches[0]
    assert "route add 10.244.0.0/16 via 10.244.0.2 dev gf0" in batches[1]


def test_another_clusters_link_is_not_touched(
    layout: Layout, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.answer("ip", "-json", "link", "show", stdout=json.dumps([{"ifalias": "gpufleet test bed in /other"}]))
    network.disconnect("gf0", Path("/cache/cluster"), runner)
    assert not any("delete" in call for call in runner.calls)
    network.disconnect("gf0", Path("/other"), runner)
    assert runner.calls[-1] == ["ip", "link", "delete", "gf0"]


def test_a_link_that_exists_is_a_conflict(layout: Layout) -> None:
    class Taken:
        returncode = 2
        stderr = "RTNETLINK answers: File exists"
        stdout = json.dumps([{"ifalias": "gpufleet test bed in /other"}])

    with pytest.raises(ConflictError, match=r"gf0 exists: .*"):
        network.connect(layout, 42, lambda *args, **options: Taken())  # type: ignore[arg-type] # a stub
