"""Collects what explains a failed test: the objects, and the logs of operator and agents."""

import json
import tempfile
from pathlib import Path

from gpufleet_e2e.proof import EvidenceError
from gpufleet_e2e.support.api import NODES, TELEMETRY, events, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE

LAST_LINES = 25


def collect(fleet: Fleet, namespace: str) -> str:
    """Writes everything into a new folder; returns its path and the last lines of the operator's log."""
    folder = Path(tempfile.mkdtemp(prefix=f"gpufleet-{namespace}-"))
    for name, path in {
        "workloads": workloads(namespace),
        "pods": pods(namespace),
        "events": events(namespace),
        "telemetry": TELEMETRY,
        "nodes": NODES,
        "system-pods": pods(NAMESPACE),
    }.items():
        response = fleet.api.call("GET", path)
        text = json.dumps(response.body, indent=1) if response.allowed else response.text
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    try:
        holdings = "\n".join(str(one) for one in fleet.collector.holdings())
    except EvidenceError as error:
        holdings = str(error)
    (folder / "podresources.txt").write_text(holdings, encoding="utf-8")
    operator = ""
    for pod in fleet.api.list(pods(NAMESPACE)):
        name = pod["metadata"]["name"]
        for previous in (False, True):
            response = fleet.api.call("GET", f"{pods(NAMESPACE)}/{name}/log?previous={str(previous).lower()}")
            if response.allowed:
                (folder / f"{name}{'-previous' if previous else ''}.log").write_text(response.text, encoding="utf-8")
                if "operator" in name and not previous:
                    operator = response.text
    last = "\n".join(operator.splitlines()[-LAST_LINES:])
    return f"objects and logs are in {folder}\nlast lines of the operator's log:\n{last}"
