"""`python -m gpufleet_e2e.demo [up|down]`: runs the demo, or removes everything that it created.

Exit codes: 0 everything verified, 1 a source disagrees or something did not happen, 2 wrong usage, 3 the cluster or the
installation failed, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from gpufleet_e2e.demo import diagnostics, scenario, setup
from gpufleet_e2e.demo.context import DEVICE_PLUGIN, TRANSPORTS, DemoContext
from gpufleet_e2e.demo.terminal import Terminal, make_console
from gpufleet_e2e.proof import EvidenceError, WaitTimeoutError
from gpufleet_e2e.proof.testbed import collector_for
from gpufleet_simgpu.build import CompilerError
from gpufleet_testbed import (
    Cluster,
    ClusterConfig,
    ClusterError,
    ConflictError,
    HostError,
    NotRunningError,
    attach,
    cache_dir,
    status,
    up,
)
from gpufleet_testbed.local.processes.lock import Lock, holder

FAILURES = (ClusterError, CompilerError, EvidenceError, WaitTimeoutError, TimeoutError)
FAILED = 3
INTERRUPTED = 130
NODES = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    chosen = parser().parse_args(arguments)
    terminal = Terminal(make_console(sys.stdout), scenario.STEPS if chosen.action == "up" else 1)
    try:
        return (
            down(terminal) if chosen.action == "down" else run_exclusively(terminal, chosen.timeout, chosen.transport)
        )
    except KeyboardInterrupt:
        terminal.console.print()
        if status() is None:
            terminal.fail("interrupted; nothing is left running")
        else:
            terminal.fail("interrupted; the cluster keeps running")
            terminal.say("Run `make demo` to continue on this cluster, or `make demo-down` to remove everything.")
        return INTERRUPTED
    except (HostError, ConflictError) as error:
        terminal.fail("the demo cannot start:")
        terminal.quote(str(error))
        return FAILED
    except FAILURES as error:
        terminal.fail("the demo cannot continue:")
        terminal.quote(str(error))
        terminal.say("Run `make demo` to try again on the same cluster, or `make demo-down` to remove everything.")
        return FAILED


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m gpufleet_e2e.demo", description="Runs gpufleet on a real cluster with simulated GPUs."
    )
    made.add_argument("action", nargs="?", choices=("up", "down"), default="up", help="run the demo, or remove it")
    made.add_argument(
        "--timeout",
        type=float,
        default=90,
        metavar="SECONDS",
        help="longest single wait",
    )
    made.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default=DEVICE_PLUGIN,
        help="how devices get into containers: by the device plugin, or by ResourceClaims",
    )
    return made


def run_exclusively(terminal: Terminal, timeout_seconds: float, transport: str) -> int:
    """Runs the demo unless another process does: two on one cluster would take each other's GPUs.

    Raises:
        ConflictError: Another process runs the demo.
    """
    path = cache_dir() / "demo.lock"
    lock = Lock.try_acquire(path)
    if lock is None:
        raise ConflictError(f"{holder(path)} runs the demo; wait until it ends")
    try:
        return run(terminal, timeout_seconds, transport)
    finally:
        lock.remove()


def run(terminal: Terminal, timeout_seconds: float, transport: str) -> int:
    """Runs the whole demo and returns the exit code; the cluster keeps running, also after a failure."""
    terminal.step(
        "Start a real Kubernetes cluster of two nodes",
        "Real apiserver, scheduler, kubelets and containerd: only the GPUs are simulated.",
    )
    # Until the demo ends, the cluster ends with this process, kill -9 included, unless it ran before.
    cluster = up(ClusterConfig.from_environment(nodes=NODES))
    try:
        return run_on(cluster, terminal, timeout_seconds, transport)
    finally:
        cluster.release()


def run_on(cluster: Cluster, terminal: Terminal, timeout_seconds: float, transport: str) -> int:
    """Runs the demo on a cluster of two nodes and returns the exit code."""
    terminal.progress(f"{NODES} nodes are ready and have the images")
    terminal.step(
        "Give each node eight different GPUs",
        "A simulated libnvidia-ml reads them from a file that can change at any time; the agent is unchanged.",
    )
    driver = setup.install_driver(cluster)
    terminal.progress(setup.describe_nodes(cluster))
    with collector_for(cluster) as collector:
        context = DemoContext(cluster, collector, terminal, timeout_seconds, transport)
        try:
            setup.remove_earlier_demo(context)
            scenario.run_steps(context, driver)
            scenario.check_everything(context)
        except ConflictError:  # the pods are fine
            raise
        except FAILURES:
            diagnostics.show_unready_pods(cluster, terminal)
            raise
        code = scenario.summarize(terminal, context.problems)
        scenario.show_next_commands(context, driver)
    return code


def down(terminal: Terminal) -> int:
    """Removes workloads, chart and cluster, and returns the exit code."""
    try:
        cluster = attach()
    except NotRunningError:
        terminal.ok("no cluster is running: nothing to remove")
        return 0
    setup.remove(cluster, terminal)
    return 0
