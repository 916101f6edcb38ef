"""Measures the operator's pass: time and memory for a fleet in this process, without a cluster.

    python bench/operator_pass.py [--sizes 1000x2000,5000x10000] [--repeats 7] [--json]

A size is nodes x running workloads; 100 more workloads wait for devices that no node has. Each node has eight GPUs and
twenty pods of others. Objects are decoded from JSON, as the operator decodes them, in a new process for each size, and
nothing is written to an apiserver: what a pass decides is applied to the caches directly, between the measurements.

Measured is the processor time of one pass, without the writes:

  first_pass_s          the first pass of a process, with the statuses of an earlier one
  pod_change_ms         after the readiness of one running pod changed
  telemetry_change_ms   after one agent's report
  renewal_ms            after one agent's renewal of its Lease
  place_ms              that places one new workload
  recovery_s            after all GPUTelemetry was deleted and created again: it restores every reservation
  rss_mib               resident memory after all of these, with everything that the operator imports

`from_scratch` has the times of passes after the same changes that use nothing of earlier passes: one of each kind,
unless `--scratch-repeats` says otherwise, since such a pass takes seconds.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

# kopf imports the official client where it is installed, as it is for the end-to-end tests, but not in the image.
sys.modules["kubernetes"] = None  # type: ignore[assignment]  # as importlib documents
if __name__ == "__main__":  # structlog does so with rich, which the command line needs
    sys.modules["rich"] = None  # type: ignore[assignment]  # as importlib documents
import gpufleet_operator.main as operator_main  # for the memory of everything that the operator imports
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_testing.operator.decisions import AppliedDecisions
from gpufleet_testing.operator.synthetic import SyntheticFleet

SIZES = "1000x2000,5000x10000"
WAITING = 100
MAX_PASSES = 2000
"""A pass writes at most 32 statuses."""
GOALS = {
    "1000x2000": {"first_pass_s": 1.5, "rss_mib": 120.0},
    "5000x10000": {"pod_change_ms": 10.0, "telemetry_change_ms": 5.0, "place_ms": 20.0, "rss_mib": 350.0},
}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(slots=True)
class Times:
    """Milliseconds of repeated passes."""

    values: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        return {
            "min": round(min(self.values), 2),
            "median": round(statistics.median(self.values), 2),
            "max": round(max(self.values), 2),
        }


class Bench:
    """One fleet and its operator.

    Args:
        nodes: Number of nodes.
        running: Number of running workloads.
        waiting: Number of workloads that wait.
        statuses: A file with what an earlier process wrote; None: it has written nothing.
    """

    def __init__(self, nodes: int, running: int, waiting: int, statuses: Path | None = None) -> None:
        self.fleet = SyntheticFleet(nodes, running, waiting, NOW)
        self.now = NOW
        self.cache = Cache()
        self.fleet.fill(self.cache)
        self.applied = AppliedDecisions(self.fleet, self.cache)
        if statuses is not None:
            with statuses.open(encoding="utf-8") as lines:
                self.applied.restore(json.loads(line) for line in lines)
        self.version = 1000
        self.next_workload = running + waiting
        self.reconciler = self.new_process()

    def new_process(self) -> Reconciler:
        return Reconciler(
            self.cache,
            self.applied,
            Limits(),
            ServerClock(lambda: self.now),
            Metrics(CollectorRegistry()),
            name_seed=lambda: "bench",
            resync_interval_seconds=3600.0,
        )

    def timed_pass(self, *, scratch: bool = False) -> tuple[float, Actions]:
        """Returns the milliseconds of processor time of a pass, and what it decided."""
        self.now += timedelta(milliseconds=20)
        if scratch:
            self.cache.tracker.note_everything()
        started = time.process_time()
        actions = self.reconciler.decide_once()
        return (time.process_time() - started) * 1000, actions

    def settle(self, actions: Actions | None = None) -> float:
        """Applies what was decided, and passes until nothing is; returns the milliseconds of the longest pass."""
        longest = 0.0
        for _ in range(MAX_PASSES):
            if actions is not None:
                asyncio.run(self.applied.run(actions))
            milliseconds, actions = self.timed_pass()
            longest = max(longest, milliseconds)
            if actions.empty:
                return longest
        raise RuntimeError("the fleet does not settle")

    def change_pod(self, number: int) -> None:
        self.version += 1
        body = self.fleet.pod(number, self.fleet.template_hash(self.cache, number), version=self.version)
        ready = self.cache.pods.items[body["metadata"]["uid"]].ready
        body["status"]["conditions"][0]["status"] = "False" if ready else "True"
        self.cache.pods.apply(body)

    def change_telemetry(self, number: int) -> None:
        self.applied.telemetry(self.fleet.node_name(number), celsius=41 + number % 9, at=self.now)

    def renew_lease(self, number: int) -> None:
        self.now += timedelta(seconds=1)  # the resolution of the apiserver's times
        self.applied.renewal(self.fleet.node_name(number), self.now)

    def submit(self) -> None:
        self.fleet.submit(self.cache, self.next_workload, devices={"count": 1})
        self.next_workload += 1

    def measure_recovery(self) -> float:
        """Returns the seconds of the longest pass until all reservations are restored."""
        self.applied.lose_reservations(self.now)
        longest = self.settle()
        held = sum(len(one.assignments) for one in self.cache.telemetry.items.values())
        if held < self.fleet.running:
            raise RuntimeError(f"{held} of {self.fleet.running} reservations were restored")
        return longest / 1000

    def measure(self, change: Callable[[int], None], repeats: int, *, scratch: bool = False) -> Times:
        times = Times()
        for repeat in range(repeats):
            change((7 + 13 * repeat) % self.fleet.nodes)
            milliseconds, actions = self.timed_pass(scratch=scratch)
            times.values.append(milliseconds)
            self.settle(actions)
        return times

    def measure_place(self, repeats: int, *, scratch: bool = False) -> Times:
        times = Times()
        for _ in range(repeats):
            self.submit()
            milliseconds, actions = self.timed_pass(scratch=scratch)
            if not actions.reserves:
                raise RuntimeError("the pass placed nothing")
            times.values.append(milliseconds)
            self.settle(actions)
        return times


def rss_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kib) / 1024


def write_statuses(nodes: int, running: int, waiting: int, file: Path) -> None:
    """Writes what the first process of an operator writes to a file, so that memory is measured without it."""
    bench = Bench(nodes, running, waiting)
    bench.settle()
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{json.dumps(entry)}\n" for entry in bench.applied.stored())


def measured(
    nodes: int, running: int, repeats: int, waiting: int, statuses: Path | None, *, scratch_repeats: int = 1
) -> dict[str, Any]:
    """Returns the values of one size. Each time has its median, and minimum and maximum beside it."""
    bench = Bench(nodes, running, waiting, statuses)
    if statuses is None:
        bench.settle()
        bench.reconciler = bench.new_process()
    for number in range(nodes):
        bench.applied.renewal(bench.fleet.node_name(number), bench.now)
    operator_main.release_unused_memory()
    first, actions = bench.timed_pass()
    bench.settle(actions)
    kept = {
        "pod_change_ms": bench.measure(bench.change_pod, repeats),
        "telemetry_change_ms": bench.measure(bench.change_telemetry, repeats),
        "renewal_ms": bench.measure(bench.renew_lease, repeats),
        "place_ms": bench.measure_place(repeats),
    }
    rss = rss_mib()
    recovery = bench.measure_recovery()
    scratch = {
        "pod_change_ms": bench.measure(bench.change_pod, scratch_repeats, scratch=True),
        "telemetry_change_ms": bench.measure(bench.change_telemetry, scratch_repeats, scratch=True),
        "renewal_ms": bench.measure(bench.renew_lease, scratch_repeats, scratch=True),
        "place_ms": bench.measure_place(scratch_repeats, scratch=True),
    }
    return {
        **{name: times.summary()["median"] for name, times in kept.items()},
        "first_pass_s": round(first / 1000, 3),
        "recovery_s": round(recovery, 3),
        "rss_mib": round(rss, 1),
        "spread": {name: times.summary() for name, times in kept.items()},
        "from_scratch": {name: times.summary()["median"] for name, times in scratch.items()},
        "from_scratch_spread": {name: times.summary() for name, times in scratch.items()},
    }


def in_new_process(size: str, repeats: int, scratch_repeats: int, waiting: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", size, "--repeats", str(repeats), "--waiting", str(waiting)]
    command += ["--scratch-repeats", str(scratch_repeats)]
    with tempfile.TemporaryDirectory(prefix="gpufleet-bench-") as folder:
        statuses = Path(folder) / "statuses.jsonl"
        subprocess.run([*command, "--write-statuses", statuses], check=True)
        command += ["--statuses", str(statuses)]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    if sys.modules.get("rich", ...) is None:
        del sys.modules["rich"]
    from rich.console import Console  # noqa: PLC0415 - hidden during the measurement
    from rich.table import Table  # noqa: PLC0415 - hidden during the measurement

    console = Console()
    for size, values in found.items():
        table = Table(title=f"{size} (nodes x running workloads)")
        for title in ("", "median", "min", "max", "goal", "from scratch"):
            table.add_column(title, justify="left" if not title else "right")
        for name in (*values["spread"], "first_pass_s", "recovery_s", "rss_mib"):
            spread = values["spread"].get(name, {})
            goal = GOALS.get(size, {}).get(name)
            table.add_row(
                name,
                f"{values[name]:g}",
                f"{spread['min']:g}" if spread else "",
                f"{spread['max']:g}" if spread else "",
                "" if goal is None else f"{goal:g}",
                f"{values['from_scratch'][name]:g}" if spread else "",
                style="red" if goal is not None and values[name] > goal else "",
            )
        console.print(table)


def parsed_size(text: str) -> tuple[int, int]:
    """Returns nodes and running workloads of `1000x2000`. Raises ArgumentTypeError with what is wrong."""
    nodes, _, running = text.partition("x")
    if not (nodes.isdigit() and running.isdigit() and int(nodes) and int(running)):
        raise argparse.ArgumentTypeError(f'"{text}": must be two numbers above 0, such as 1000x2000')
    if int(running) > 8 * int(nodes):
        raise argparse.ArgumentTypeError(f'"{text}": a node has 8 GPUs, so at most {8 * int(nodes)} workloads run')
    return int(nodes), int(running)


def size_list(text: str) -> list[str]:
    sizes = text.split(",")
    for size in sizes:
        parsed_size(size)
    return sizes


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure time and memory of the operator's passes.")
    parser.add_argument(
        "--sizes", type=size_list, default=SIZES, help="nodes x running workloads (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="passes of each kind (default: %(default)s)")
    parser.add_argument(
        "--scratch-repeats", type=int, default=1, help="passes of each kind from scratch (default: %(default)s)"
    )
    parser.add_argument("--waiting", type=int, default=WAITING, help="workloads that wait (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of tables")
    for hidden in ("--statuses", "--write-statuses"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=parsed_size, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in ("repeats", "scratch_repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if options.one:
        nodes, running = options.one
        if options.write_statuses:
            write_statuses(nodes, running, options.waiting, options.write_statuses)
        else:
            found = measured(
                nodes,
                running,
                options.repeats,
                options.waiting,
                options.statuses,
                scratch_repeats=options.scratch_repeats,
            )
            print(json.dumps(found))
        return 0
    found = {
        size: in_new_process(size, options.repeats, options.scratch_repeats, options.waiting) for size in options.sizes
    }
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    operator_main.tune_garbage_collector()
    sys.exit(main())
