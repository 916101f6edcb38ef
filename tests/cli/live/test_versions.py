"""`gpufleet version` shows what runs in the cluster."""

import json
from importlib.metadata import version

from gpufleet_cli.cluster.kinds import OPERATORS
from gpufleet_testing.cli.clusters import RecordedCluster, live_telemetry
from gpufleet_testing.cli.runner import run_cli


def test_versions_of_operator_agents_and_kubernetes_are_counted(cluster: RecordedCluster) -> None:
    labels = {
        "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/version": "0.2.0",
        "helm.sh/chart": "gpufleet-0.2.0",
    }
    cluster.record("/version", json.dumps({"gitVersion": "v1.36.3"}))
    old, new = ({"agentVersion": one} for one in ("0.1.0", "0.2.0"))
    at = "2026-01-01T00:00:00Z"
    cluster.fleet([live_telemetry(f"node-{n}", observed=at, **(old if n == 1 else new)) for n in range(3)])
    cluster.put(OPERATORS, {"metadata": {"name": "gpufleet-operator", "namespace": "x", "labels": labels}})
    lines = ["operator 0.2.0 (1 deployment)", "agents 0.1.0 (1 node), 0.2.0 (2 nodes)", "kubernetes v1.36.3"]
    for argument in ("version", "--version"):
        done = run_cli(argument)
        assert done.out.splitlines() == [f"gpufleet {version('gpufleet')}", *lines]
    assert all("--request-timeout=5s" in call for call in cluster.calls)


def test_what_may_not_be_read_is_named(cluster: RecordedCluster) -> None:
    cluster.record("/version", json.dumps({"gitVersion": "v1.36.3"}))
    cluster.fleet()
    cluster.fail(OPERATORS.path(), "Error from server (Forbidden): you cannot list")
    assert "operator not read: you cannot list: ask an administrator" in run_cli("version").out
    assert "agents not installed" in run_cli("version").out
