"""The processes of a fleet of fake nodes: kwok, the agents, and the operator from this checkout."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpufleet_e2e.support.programs import operator_process
from gpufleet_testbed.binaries.assets import find_assets
from gpufleet_testbed.config import cache_dir
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import KWOK

FAKE_NODE = {"kwok.x-k8s.io/node": "fake"}
"""Annotation of the nodes that kwok plays."""
_STOP_SECONDS = 10


@contextmanager
def running(arguments: list[str], log: Path, *, kubeconfig: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program while the block runs; its output goes to a file."""
    env = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    with log.open("wb") as output, subprocess.Popen(arguments, stdout=output, stderr=output, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def kwok_command(kubeconfig: Path) -> list[str]:
    """Returns the command line of kwok, which is built if the cache lacks it."""
    assets = find_assets(cache_dir(), Progress(), tools=(KWOK,))
    (key, value), *_ = FAKE_NODE.items()
    return [
        assets["kwok"],
        f"--kubeconfig={kubeconfig}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={key}={value}",
        "--node-lease-duration-seconds=40",
        f"--config={Path(__file__).with_name('stages.yaml')}",
    ]


def agents_command(kubeconfig: Path, nodes: int) -> list[str]:
    return [sys.executable, "-m", "gpufleet_e2e.scale.agents", str(kubeconfig), str(nodes)]


def operator_command() -> list[str]:
    """Returns the command line of an operator that may be killed and started again at once."""
    address = f"127.0.0.1:{operator_process.free_port()}"
    return operator_process.operator_command(f"--listen={address}", "--leader-election=false")
