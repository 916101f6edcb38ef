"""Prometheus' own linter on the series of both processes, as they are served on a cluster with workloads."""

import re
from functools import partial

import pytest

from gpufleet_e2e.support.api import pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.promtool import check_metrics
from gpufleet_e2e.support.sandbox import TestNamespace

DCGM = re.compile(r"DCGM_FI_\w+ ")
"""The only exceptions: names, labels and types are DCGM's."""


POWER = "DCGM_FI_DEV_POWER_USAGE{"


def test_linter_finds_nothing_but_dcgm_names(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: `promtool check metrics` on /metrics of agent and operator, with shared and exclusive holders."""
    node = fleet.nodes[0]
    first, second = fleet.gpus[node].uuids[5:7]
    shared = {"mode": "Shared", "memoryMiB": 1000}
    namespace.apply(
        gpuworkload("whole", uuids=(first,)),
        *(gpuworkload(f"share-{index}", devices=shared, uuids=(second,)) for index in range(2)),
    )
    namespace.verify("whole", "share-0", "share-1")
    eventually(partial(_holders_are, fleet, node, {first: 1, second: 2}), within=30)

    agent = _page(fleet, fleet.agent_pod(node)["metadata"]["name"], 9400)
    operator = _page(fleet, fleet.operator_pod()["metadata"]["name"], 8080)
    assert [line for line in check_metrics(agent) if not DCGM.match(line)] == []
    assert check_metrics(operator) == []
    assert any("gpufleet_operator_" in line for line in operator.splitlines())

    powers = [float(line.rpartition(" ")[2]) for line in agent.splitlines() if line.startswith(POWER)]
    assert sum(powers) == pytest.approx(fleet.gpus[node].total("power_milliwatts") / 1000)


def _page(fleet: Fleet, pod: str, port: int) -> str:
    return fleet.api.text(f"{pods(NAMESPACE)}/{pod}:{port}/proxy/metrics")


def _holders_are(fleet: Fleet, node: str, expected: dict[str, int]) -> None:
    page = _page(fleet, fleet.agent_pod(node)["metadata"]["name"], 9400)
    found = {uuid: len(re.findall(rf'^gpufleet_device_holder{{.*"{uuid}"', page, re.MULTILINE)) for uuid in expected}
    assert found == expected
