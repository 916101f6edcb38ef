"""`python -m gpufleet_e2e.demo [up|down]`: plays the story, or removes everything that it made.

Exit codes: 0 all proven, 1 something disagrees or did not happen, 2 wrong usage, 3 the cluster or the installation
failed, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from gpufleet_e2e.demo import diagnostics, scenario, setup
from gpufleet_e2e.demo.context import DemoContext
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
    """Run the command and return its exit code."""
    chosen = parser().parse_args(arguments)
    terminal = Terminal(make_console(sys.stdout), scenario.STEPS if chosen.action == "up" else 1)
    try:
        return down(terminal) if chosen.action == "down" else run_exclusively(terminal, chosen.timeout)
    except KeyboardInterrupt:
        terminal.console.print()
        if status() is None:
            terminal.bad("interrupted; nothing was left running")
        else:
            terminal.bad("interrupted; the cluster goes on")
            terminal.say("Type `make demo` to take over and go on, or `make demo-down` to remove everything.")
        return INTERRUPTED
    except (HostError, ConflictError) as error:
        terminal.bad("the demo can't start:")
        terminal.quote(str(error))
        return FAILED
    except FAILURES as error:
        terminal.bad("the demo can't go on:")
        terminal.quote(str(error))
        terminal.say("Type `make demo` to try again on the same cluster, or `make demo-down` to remove everything.")
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m gpufleet_e2e.demo", description="gpufleet on a real cluster with simulated GPUs."
    )
    made.add_argument("action", nargs="?", choices=("up", "down"), default="up", help="play the story, or remove all")
    made.add_argument("--timeout", type=float, default=90, metavar="SECONDS", help="longest wait for any one thing")
    return made


def run_exclusively(terminal: Terminal, timeout_seconds: float) -> int:
    """As `run_steps`, for one process at a time: two stories on one cluster would take each other's GPUs.

    Raises:
        ConflictError: another process plays it.
    """
    path = cache_dir() / "demo.lock"
    lock = Lock.try_acquire(path)
    if lock is None:
        raise ConflictError(f"{holder(path)} plays the demo; wait for its end")
    try:
        return run(terminal, timeout_seconds)
    finally:
        lock.remove()


def run(terminal: Terminal, timeout_seconds: float) -> int:
    """The whole story. Returns the exit code; the cluster lives on, also when the story could not be told."""
    terminal.step(
        "Start a real Kubernetes cluster of two nodes",
        "Real apiserver, scheduler, kubelets and containerd: only the GPUs are simulated.",
    )
    # Until the story is over, the cluster ends with this process, kill -9 included, unless it was there before.
    cluster = up(ClusterConfig.from_environment(nodes=NODES))
    try:
        return _run_on(cluster, terminal, timeout_seconds)
    finally:
        cluster.release()


def _run_on(cluster: Cluster, terminal: Terminal, timeout_seconds: float) -> int:
    terminal.progress(f"{NODES} nodes are ready, with the images on them")
    terminal.step(
        "Give each node eight GPUs, all different",
        "Our own libnvidia-ml reads them from a file that can change while everything runs; the agent can't tell.",
    )
    driver = setup.install_driver(cluster)
    terminal.progress(setup.describe_nodes(cluster))
    with collector_for(cluster) as collector:
        context = DemoContext(cluster, collector, terminal, timeout_seconds)
        try:
            setup.remove_earlier_demo(context)
            scenario.run_steps(context, driver)
            scenario.check_everything(context)
        except ConflictError:  # nothing is broken
            raise
        except FAILURES:
            diagnostics.show_unready_pods(cluster, terminal)
            raise
        code = scenario.summarize(terminal, context.problems)
        scenario.show_next_commands(context, driver)
    return code


def down(terminal: Terminal) -> int:
    """Remove workloads, chart and cluster. Returns the exit code; without a cluster there is nothing to do."""
    try:
        cluster = attach()
    except NotRunningError:
        terminal.good("no cluster is running: there is nothing to remove")
        return 0
    setup.remove(cluster, terminal)
    return 0
