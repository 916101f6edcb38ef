"""`python -m gpufleet_e2e.demo [up|down]`: plays the story, or removes everything that it made.

Exit codes: 0 all proven, 1 something disagrees or did not happen, 2 wrong usage, 3 the cluster or the installation
failed, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from gpufleet_e2e.demo import diagnostics, scenario, setup
from gpufleet_e2e.demo.context import Stage
from gpufleet_e2e.demo.terminal import Screen, make_console
from gpufleet_e2e.proof import EvidenceError, WaitTimeoutError
from gpufleet_e2e.proof.testbed import witness_of
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
    screen = Screen(make_console(sys.stdout), scenario.STEPS if chosen.action == "up" else 1)
    try:
        return down(screen) if chosen.action == "down" else play_alone(screen, chosen.timeout)
    except KeyboardInterrupt:
        screen.console.print()
        if status() is None:
            screen.bad("interrupted; nothing was left running")
        else:
            screen.bad("interrupted; the cluster goes on")
            screen.say("Type `make demo` to take over and go on, or `make demo-down` to remove everything.")
        return INTERRUPTED
    except (HostError, ConflictError) as error:
        screen.bad("the demo can't start:")
        screen.quote(str(error))
        return FAILED
    except FAILURES as error:
        screen.bad("the demo can't go on:")
        screen.quote(str(error))
        screen.say("Type `make demo` to try again on the same cluster, or `make demo-down` to remove everything.")
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m gpufleet_e2e.demo", description="gpufleet on a real cluster with simulated GPUs."
    )
    made.add_argument("action", nargs="?", choices=("up", "down"), default="up", help="play the story, or remove all")
    made.add_argument("--timeout", type=float, default=90, metavar="SECONDS", help="longest wait for any one thing")
    return made


def play_alone(screen: Screen, timeout_seconds: float) -> int:
    """As `play`, for one process at a time: two stories on one cluster would take each other's GPUs.

    Raises:
        ConflictError: another process plays it.
    """
    path = cache_dir() / "demo.lock"
    lock = Lock.try_acquire(path)
    if lock is None:
        raise ConflictError(f"{holder(path)} plays the demo; wait for its end")
    try:
        return play(screen, timeout_seconds)
    finally:
        lock.remove()


def play(screen: Screen, timeout_seconds: float) -> int:
    """The whole story. Returns the exit code; the cluster lives on, also when the story could not be told."""
    screen.step(
        "Start a real Kubernetes cluster of two nodes",
        "Real apiserver, scheduler, kubelets and containerd: only the GPUs are simulated.",
    )
    # Until the story is over, the cluster ends with this process, kill -9 included, unless it was there before.
    cluster = up(ClusterConfig.from_environment(nodes=NODES))
    try:
        return _play_on(cluster, screen, timeout_seconds)
    finally:
        cluster.release()


def _play_on(cluster: Cluster, screen: Screen, timeout_seconds: float) -> int:
    screen.progress(f"{NODES} nodes are ready, with the images on them")
    screen.step(
        "Give each node eight GPUs, all different",
        "Our own libnvidia-ml reads them from a file that can change while everything runs; the agent can't tell.",
    )
    driver = setup.make_driver(cluster)
    screen.progress(setup.machines_in_words(cluster))
    with witness_of(cluster) as witness:
        stage = Stage(cluster, witness, screen, timeout_seconds)
        try:
            setup.clear(stage)
            scenario.play(stage, driver)
            scenario.close(stage)
        except ConflictError:  # nothing is broken
            raise
        except FAILURES:
            diagnostics.show(cluster, screen)
            raise
        code = scenario.verdict(screen, stage.problems)
        scenario.what_next(stage, driver)
    return code


def down(screen: Screen) -> int:
    """Remove workloads, chart and cluster. Returns the exit code; without a cluster there is nothing to do."""
    try:
        cluster = attach()
    except NotRunningError:
        screen.good("no cluster is running: there is nothing to remove")
        return 0
    setup.remove(cluster, screen)
    return 0
