"""What one wants to see after a test has failed: the objects, and what operator and agents wrote."""

import json
import tempfile
from pathlib import Path

from gpufleet_e2e.proof import EvidenceError
from gpufleet_e2e.support.api import NODES, TELEMETRY, events, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE

LAST_LINES = 25


def collect(fleet: Fleet, namespace: str) -> str:
    """Write everything into a new folder; returns its path and the last lines of the operator's log."""
    folder = Path(tempfile.mkdtemp(prefix=f"gpufleet-{namespace}-"))
    for name, path in {
        "workloads": workloads(namespace),
        "pods": pods(namespace),
        "events": events(namespace),
        "telemetry": TELEMETRY,
        "nodes": NODES,
        "system-pods": pods(NAMESPACE),
    }.items():
        answer = fleet.api.call("GET", path)
        text = json.dumps(answer.body, indent=1) if answer.allowed else answer.text
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    try:
        held = "\n".join(str(one) for one in fleet.witness.holdings())
    except EvidenceError as error:
        held = str(error)
    (folder / "podresources.txt").write_text(held, encoding="utf-8")
    operator = ""
    for pod in fleet.api.list(pods(NAMESPACE)):
        name = pod["metadata"]["name"]
        for previous in (False, True):
            answer = fleet.api.call("GET", f"{pods(NAMESPACE)}/{name}/log?previous={str(previous).lower()}")
            if answer.allowed:
                (folder / f"{name}{'-previous' if previous else ''}.log").write_text(answer.text, encoding="utf-8")
                if "operator" in name and not previous:
                    operator = answer.text
    last = "\n".join(operator.splitlines()[-LAST_LINES:])
    return f"everything is in {folder}\nthe operator's last lines:\n{last}"
