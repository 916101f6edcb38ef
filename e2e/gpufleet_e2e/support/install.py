"""Installs the chart as a user does, with shorter intervals than the defaults."""

import json
from collections.abc import Mapping, Sequence

from gpufleet_testbed import Cluster, repository_root

RELEASE = "gpufleet"
NAMESPACE = "gpufleet-system"
HEARTBEAT_SECONDS = 5
STALE_SECONDS = 15
BY_HAND = "by-hand"
"""A scheduler that does not exist: tests bind the pods that name it."""


SCHEDULING_TIMEOUT_SECONDS = 25
"""Tests bind pods by hand sooner."""


def install(
    cluster: Cluster,
    *,
    agent_args: Sequence[str] = (),
    agent: Mapping[str, object] | None = None,
    values: Mapping[str, object] | None = None,
) -> None:
    """Runs `helm upgrade --install --wait` with the tests' values; earlier values do not count.

    Args:
        cluster: The cluster to install on.
        agent_args: Additional arguments of every agent.
        agent: Additional values of the chart's agent.
        values: Additional values of the chart.

    Raises:
        ClusterError: helm failed; the message contains its output.
    """
    given = {
        "agent": {
            "driver": {"hostPath": "/opt/gpufleet/driver"},
            "heartbeatSeconds": HEARTBEAT_SECONDS,
            "extraArgs": list(agent_args),
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
            **(agent or {}),
        },
        "operator": {
            "staleAfterSeconds": STALE_SECONDS,
            "resyncIntervalSeconds": 2,
            "restartBackoffSeconds": 1,
            "schedulers": ["default-scheduler", BY_HAND],
            "schedulingTimeoutSeconds": SCHEDULING_TIMEOUT_SECONDS,
        },
        **(values or {}),
    }
    chart = str(repository_root() / "charts" / "gpufleet")
    where = ("upgrade", "--install", RELEASE, chart, f"--namespace={NAMESPACE}", "--create-namespace")
    cluster.helm(*where, "--values=-", "--wait", stdin=json.dumps(given), timeout=180)
