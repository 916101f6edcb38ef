"""Installs the chart as a user does, with shorter intervals than the defaults."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gpufleet_testbed import PROJECT_IMAGE, Cluster, repository_root

REPOSITORY, TAG = PROJECT_IMAGE.removeprefix("localhost/").split(":")
"""The test bed's image has the programs of all images."""
RELEASE = "gpufleet"
NAMESPACE = "gpufleet-system"
HEARTBEAT_SECONDS = 5
REPORT_SECONDS = 20
STALE_SECONDS = 15
RECLAIM_AFTER_SECONDS = 3
BY_HAND = "by-hand"
"""A scheduler that does not exist: tests bind the pods that name it."""


SCHEDULING_TIMEOUT_SECONDS = 25
"""Tests bind pods by hand sooner."""


def install(
    cluster: Cluster,
    *,
    agent_args: Sequence[str] = (),
    agent: Mapping[str, object] | None = None,
    operator: Mapping[str, object] | None = None,
    values: Mapping[str, object] | None = None,
    chart: Path | None = None,
    wait: bool = True,
) -> None:
    """Runs `helm upgrade --install --wait` with the tests' values; earlier values do not count.

    Args:
        cluster: The cluster to install on.
        agent_args: Additional arguments of every agent.
        agent: Additional values of the chart's agent.
        operator: Additional values of the chart's operator.
        values: Additional values of the chart.
        chart: Another version of the chart, which gets only those of the tests' values that it knows.
        wait: Whether to wait for the pods. With update strategy OnDelete, helm waits until all are replaced by hand.

    Raises:
        ClusterError: helm failed; the message contains its output.
    """
    given: dict[str, Any] = {
        "image": {"tag": TAG},
        "agent": {
            "image": {"repository": REPOSITORY},
            "driver": {"hostPath": "/opt/gpufleet/driver", "devices": False},
            "heartbeatSeconds": HEARTBEAT_SECONDS,
            "reportSeconds": REPORT_SECONDS,
            "extraArgs": list(agent_args),
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
            **(agent or {}),
        },
        "operator": {
            "image": {"repository": REPOSITORY},
            # Tests end its process, and read its log and metrics.
            "replicas": 1,
            "staleAfterSeconds": STALE_SECONDS,
            "resyncIntervalSeconds": 2,
            "restartBackoffSeconds": 1,
            "reclaimAfterSeconds": RECLAIM_AFTER_SECONDS,
            "pressureSampleSeconds": 1,
            "schedulers": ["default-scheduler", BY_HAND],
            "schedulingTimeoutSeconds": SCHEDULING_TIMEOUT_SECONDS,
            **(operator or {}),
        },
        **(values or {}),
    }
    if chart is not None:
        given = _known(given, yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8")))
    path = str(chart or repository_root() / "charts" / "gpufleet")
    where = ("upgrade", "--install", RELEASE, path, f"--namespace={NAMESPACE}", "--create-namespace")
    # Tests change single fields of the Deployment and so own them.
    waiting = ("--wait",) if wait else ()
    cluster.helm(*where, "--values=-", *waiting, "--force-conflicts", stdin=json.dumps(given), timeout=180)


def _known(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that have a default. A mapping whose default is empty may have any keys."""
    return {name: _known_value(value, defaults[name]) for name, value in values.items() if name in defaults}


def _known_value(value: object, default: object) -> Any:
    return _known(value, default) if isinstance(value, Mapping) and isinstance(default, Mapping) and default else value
