"""A small fleet of fake nodes on a real apiserver: everything that `bench/operator_rates.py` measures, as a test."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpufleet_e2e.scale.rates import Sizes, measure
from gpufleet_testbed import Cluster, ClusterConfig, Provider, up

_FIRST_NETWORK = 230
SIZES = Sizes(nodes=20, burst=60, rate=5, rate_seconds=2, gang=16, raw=20, rest_seconds=2)


@pytest.fixture
def empty_cluster(worker_id: str) -> Iterator[Cluster]:
    """A cluster without gpufleet. The fake nodes would disturb the other tests."""
    worker = 0 if worker_id == "master" else int(worker_id.removeprefix("gw"))
    config = ClusterConfig.from_environment(
        provider=Provider.LOCAL,
        name=f"scale-{worker}",
        network=f"10.{_FIRST_NETWORK + worker}.0.0/16",
        nodes=1,
        project_image=False,
    )
    with up(config) as found:
        yield found


@pytest.mark.skipif("GPUFLEET_CLUSTER_ASSETS" in os.environ, reason="the folder of own binaries need not have kwok")
def test_burst_restart_and_gang_on_fake_nodes_keep_the_ledger(empty_cluster: Cluster, tmp_path: Path) -> None:
    found = asyncio.run(measure(empty_cluster, SIZES, tmp_path))

    assert found["faults"] == []
    assert found["burst_per_second"] > 0
    assert found["restart_seconds"] > 0
    assert found["latency_p99_seconds"] >= found["latency_p50_seconds"] > 0
    assert found["gang_seconds"] > 0
    assert found["start_seconds"] > 0
    assert found["rss_mib"] > 0
