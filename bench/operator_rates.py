"""Measures the operator on a real apiserver with many fake nodes: kwok plays the kubelets, one process the agents.

    python bench/operator_rates.py [--nodes 1000] [--burst 2000] [--rate 20] [--rate-seconds 30] [--gang 512]
        [--raw 300] [--rest-seconds 60] [--json]

A node has eight GPUs; workloads have one replica with one GPU and no Service, but for the gang, whose replicas have
eight. The operator is a process of this checkout. etcd, apiserver, kube-scheduler and all else run beside it on the
same cores, so a burst measures what is left for the operator. Measured is, in this order:

  raw_per_second          reservation and release of pods by the operator's client, without an operator
  binds_per_second        what kube-scheduler binds of plain pods, which are created as fast as possible
  start_seconds           until the first operator of the cluster has placed a workload and reported each node
  burst_per_second        workloads of a burst, from the first creation to the last gate removed
  burst_writes            requests of the operator for each workload of the burst until all are Ready, by resource
  burst_cpu_ms            processor time of the operator for each of these workloads
  rest_cpu_percent        of one core, with the workloads of the burst running
  rest_writes_per_minute  to gpufleet's resources and pods by anyone, agents included
  rss_mib                 resident memory of the operator then
  kubectl_get_seconds     of each kind
  restart_seconds         from the start of another operator, after kill -9, to its first new placement
  latency_p50_seconds     from creation to gate removed, at --rate workloads a second; latency_p99_seconds
  gang_seconds            from creation of one gang to its last gate removed
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpufleet_e2e.scale.rates import Sizes, measure
from gpufleet_testbed import ClusterConfig, Provider, up

CLUSTER = ClusterConfig.from_environment(
    provider=Provider.LOCAL,
    name="rates",
    network="10.249.0.0/16",
    nodes=1,
    project_image=False,
    component_memory_mib=10240,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns exit status 1 if the ledger was contradicted."""
    usual = Sizes()
    parser = argparse.ArgumentParser(description="Measure the operator on a real apiserver with fake nodes.")
    for name, kind, text in (
        ("nodes", int, "fake nodes with eight GPUs"),
        ("burst", int, "workloads of the burst"),
        ("rate", float, "workloads a second of the steady load"),
        ("rate-seconds", float, "duration of the steady load"),
        ("gang", int, "replicas of the gang; at most the number of nodes"),
        ("raw", int, "pods of the first two measurements"),
        ("rest-seconds", float, "duration of the measurement at rest"),
    ):
        value = getattr(usual, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=kind, default=value, help=f"{text} (default: {value:g})")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = vars(parser.parse_args(arguments))
    as_json = options.pop("json")
    sizes = Sizes(**options)
    with tempfile.TemporaryDirectory(prefix="gpufleet-rates-") as folder, up(CLUSTER) as cluster:
        found = asyncio.run(measure(cluster, sizes, Path(folder)))
    print(json.dumps(found) if as_json else json.dumps(found, indent=2))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
