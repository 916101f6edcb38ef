"""Measures the engine's speed, its growth with the fleet, and the quality of its picks.

    uv run bench/engine.py [--quick] [--json] [--nodes 5000] [--trace-nodes N.csv --trace-arrivals A.csv] [--plot X.svg]

Every decision is made as in the operator: `place`, then `Fleet.hold` debits the pick for the next decision. Each figure
is the median of at least five repeats by processor time of one thread, which other load affects little, with minimum,
maximum and the median by wall clock. Fleets are synthetic and seeded: nodes of eight devices, NVLink within each half,
random load, heat and power. For comparison, simple Python code over lists of objects makes the same single placements.
bench/packing.py times Pack on a trace or on synthetic data of its kind; bench/optimum.py compares picks with the
optimum.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gpufleet_api.workload_placement import Topology
from gpufleet_operator.placement import Fleet, place, rank_devices
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, Pick, PodNeeds, Request, Share

GIB = 2**30
PER_NODE = 8
SIZES = (100, 250, 500, 1_000, 2_500, 5_000)
REPEATS = 5
POD = PodNeeds(cpu_milli=4_000, memory_bytes=16 * GIB)
ONE = Request("bench/one", (0,), DeviceNeeds(min_free_memory_mib=20_000, max_temperature_celsius=88), POD)
GANG8 = Request("bench/gang", tuple(range(8)), ONE.devices, POD, gang=True)
LINKED = {n: Request(f"bench/{n}", (0,), DeviceNeeds(n), POD, topology=Topology.NVLINK) for n in (1, 2, 4)}
LINKED[8] = Request("bench/8", (0,), DeviceNeeds(8), POD)
SHARED = Request("bench/shared", (0,), DeviceNeeds(share=Share(10_000, 20)), PodNeeds(1_000, 4 * GIB))


def fleet_nodes(count: int, seed: int = 1) -> list[NodeState]:
    """Returns synthetic nodes whose load, heat and power depend on the seed."""
    draw = random.Random(seed)
    return [_node(f"node-{n:05}", draw) for n in range(count)]


def _node(name: str, draw: random.Random) -> NodeState:
    uuids = [f"GPU-{name}-{i}" for i in range(PER_NODE)]
    half = PER_NODE // 2
    devices = tuple(
        DeviceState(
            uuid=uuid,
            index=index,
            model="NVIDIA H100 80GB HBM3",
            memory_total_mib=81_559,
            memory_used_mib=draw.randint(0, 30_000),
            utilization_percent=draw.randint(0, 40),
            temperature_celsius=draw.randint(28, 80),
            power_milliwatts=draw.randint(60_000, 500_000),
            power_limit_milliwatts=700_000,
            compute_capability="9.0",
            numa_node=index // half,
            nvlink_peers=tuple(o for o in uuids[index // half * half : index // half * half + half] if o != uuid),
            process_count=0,
            sample_age_seconds=1.0,
        )
        for index, uuid in enumerate(uuids)
    )
    return NodeState(name, devices, free_cpu_milli=96_000, free_memory_bytes=1_024 * GIB, free_pods=110)


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over its repeats."""

    low: float
    median: float
    high: float
    wall: float
    """The median by wall clock."""


def spread(cpu: Sequence[float], wall: Sequence[float]) -> Spread:
    """Returns the spread of the repeats' values by processor time and by wall clock."""
    return Spread(min(cpu), statistics.median(cpu), max(cpu), statistics.median(wall))


def per_second(decide: Callable[[], object], seconds: float, least: int = 20) -> Spread:
    """Returns calls per second. Each repeat lasts at least `seconds` and makes at least `least` calls."""
    cpu, wall = [], []
    for _ in range(REPEATS):
        calls, began, began_wall = 0, time.process_time(), time.perf_counter()
        while calls < least or time.process_time() - began < seconds:
            decide()
            calls += 1
        cpu.append(calls / (time.process_time() - began))
        wall.append(calls / (time.perf_counter() - began_wall))
    return spread(cpu, wall)


def milliseconds(calls: Iterable[Callable[[], object]]) -> Spread:
    """Returns the duration of the calls."""
    cpu, wall = [], []
    for call in calls:
        began, began_wall = time.process_time(), time.perf_counter()
        call()
        cpu.append(1_000 * (time.process_time() - began))
        wall.append(1_000 * (time.perf_counter() - began_wall))
    return spread(cpu, wall)


def placing(fleet: Fleet, requests: Iterator[Request]) -> Callable[[], None]:
    """Returns a function that makes one decision and debits it. A full fleet is reset to its initial state."""
    start, now = fleet.copy(), [fleet]

    def once() -> None:
        request = next(requests)
        decision = place(now[0], request)
        if not decision.picks:
            now[0] = start.copy()
        for pick in decision.picks:
            now[0].hold(pick.node, pick.devices, request.pod, request.devices.share)

    return once


def always(request: Request) -> Iterator[Request]:
    """Yields the same request repeatedly."""
    while True:
        yield request


def mixed(seed: int = 2) -> Iterator[Request]:
    """Yields requests for 1, 2, 4 and 8 devices, connected by NVLink up to four."""
    draw = random.Random(seed)
    while True:
        yield LINKED[draw.choices((1, 2, 4, 8), (8, 4, 2, 1))[0]]


def occupied(nodes: Sequence[NodeState], part: float, seed: int = 3) -> Fleet:
    """Returns a fleet with this part of the devices held by randomly placed pods of mixed sizes."""
    draw, fleet = random.Random(seed), Fleet.of(nodes)
    taken, wanted = 0, part * len(nodes) * PER_NODE
    while taken < wanted:
        node = draw.choice(nodes)
        free = [d.uuid for d in fleet.nodes[node.name].devices if not d.held]
        size = draw.choices((1, 2, 4, 8), (8, 4, 2, 1))[0]
        if len(free) >= size:
            fleet.hold(node.name, free[:size], POD)
            taken += size
    return fleet


def churning(fleet: Fleet, seed: int = 4) -> Callable[[], None]:
    """Returns a function that updates the telemetry of one node, ends one pod and places one, as in a busy minute."""
    draw = random.Random(seed)
    running: list[Pick] = []
    names = sorted(fleet.nodes)

    def once() -> None:
        node = fleet.nodes[draw.choice(names)]
        warmer = [replace(d, temperature_celsius=draw.randint(28, 80)) for d in node.devices]
        fleet.put(replace(node, devices=tuple(warmer)))
        if len(running) > 1_000:
            gone = running.pop(draw.randrange(len(running)))
            fleet.release(gone.node, gone.devices, POD)
        pick = place(fleet, ONE).picks[0]
        fleet.hold(pick.node, pick.devices, POD)
        running.append(pick)

    return once


def reranking(fleet: Fleet) -> Iterator[Callable[[], object]]:
    """Yields decisions that rank every device after every node has changed. The request is already cached."""
    nodes = list(fleet.nodes.values())
    place(fleet, ONE)
    for round_ in range(REPEATS):
        for node in nodes:
            warmer = [replace(d, temperature_celsius=30 + (d.index + round_) % 50) for d in node.devices]
            fleet.put(replace(node, devices=tuple(warmer)))
        yield lambda: place(fleet, ONE)


class Plain:
    """A simple implementation of single placements: each decision visits every device of every node."""

    def __init__(self, nodes: Sequence[NodeState]) -> None:
        self.nodes = {n.name: n.devices for n in nodes}
        self.held: set[str] = set()
        self.free = {n.name: [n.free_cpu_milli, n.free_memory_bytes, n.free_pods] for n in nodes}

    def place(self, request: Request) -> None:
        """Filters and scores the devices and takes the best one."""
        best: tuple[float, str, str] | None = None
        needs, pod = request.devices, request.pod
        for name, devices in self.nodes.items():
            cpu, memory, pods = self.free[name]
            if cpu < pod.cpu_milli or memory < pod.memory_bytes or pods < 1:
                continue
            for state in devices:
                if state.uuid in self.held or not state.healthy or state.process_count:
                    continue
                total, used = state.memory_total_mib or 0, state.memory_used_mib or 0
                heat, power = state.temperature_celsius or 0, state.power_milliwatts or 0
                if total - used < (needs.min_free_memory_mib or 0) or heat > (needs.max_temperature_celsius or 1_000):
                    continue
                score = 0.4 * (1 - used / total) + 0.3 * (1 - (state.utilization_percent or 0) / 100)
                score += 0.2 * min(1.0, max(0.0, (90 - heat) / 60))
                score += 0.1 * (1 - power / (state.power_limit_milliwatts or 1))
                if best is None or score > best[0]:
                    best = (score, name, state.uuid)
        if best is not None:
            self.held.add(best[2])
            room = self.free[best[1]]
            room[0], room[1], room[2] = room[0] - pod.cpu_milli, room[1] - pod.memory_bytes, room[2] - 1


def bytes_per_device(count: int) -> float:
    """Returns the memory per device of a fleet, including its node states and the caches of one request."""
    tracemalloc.start()
    fleet = Fleet.of(fleet_nodes(count))
    place(fleet, ONE)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / (count * PER_NODE)


def growth(seconds: float) -> list[dict[str, float]]:
    """Returns by number of nodes the times to build the fleet (ms), rank it (ms) and decide again (microseconds)."""
    found = []
    for count in SIZES:
        say(f"growth: {count:,} nodes")
        nodes = fleet_nodes(count)
        built = milliseconds([lambda: Fleet.of(nodes)] * 3)  # noqa: B023 - called before the loop goes on
        fleet = Fleet.of(nodes)
        ranked = milliseconds(reranking(fleet))
        again = 1e6 / per_second(placing(fleet, always(ONE)), seconds).median
        point = {"nodes": count, "build_ms": built.median, "rerank_ms": ranked.median, "again_us": again}
        found.append({name: round(value, 3) for name, value in point.items()})
    return found


def script(name: str, *options: str) -> Any:
    """Runs another benchmark and returns its JSON output."""
    command = [sys.executable, str(Path(__file__).with_name(name)), "--json", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def pack_per_s(nodes: Path | None, arrivals: Path | None, repeats: int) -> Spread:
    """Returns the decisions per second of bench/packing.py."""
    options = ["--synthetic"]
    if nodes is not None and arrivals is not None:
        options = ["--nodes", str(nodes), "--arrivals", str(arrivals)]
    runs = [script("packing.py", *options)[0] for _ in range(repeats)]
    return spread([r["decisions_per_cpu_s"] for r in runs], [r["decisions_per_s"] for r in runs])


def speeds(count: int, seconds: float) -> dict[str, Spread]:
    """Measures the engine with a fleet of `count` nodes."""
    nodes = fleet_nodes(count)
    fresh, plain = Fleet.of(nodes), Plain(nodes)
    measured: dict[str, Callable[[], Spread]] = {
        "single_per_s": lambda: per_second(placing(fresh.copy(), always(ONE)), seconds),
        "naive_single_per_s": lambda: per_second(lambda: plain.place(ONE), seconds, least=3),
        "gang8_per_s": lambda: per_second(placing(fresh.copy(), always(GANG8)), seconds),
        "mixed_per_s": lambda: per_second(placing(occupied(nodes, 0.6), mixed()), seconds),
        "shared_per_s": lambda: per_second(placing(fresh.copy(), always(SHARED)), seconds),
        "churn_per_s": lambda: per_second(churning(fresh.copy()), seconds),
        "rerank_ms": lambda: milliseconds(reranking(fresh.copy())),
        "list_all_ms": lambda: milliseconds([lambda: rank_devices(fresh.copy())] * REPEATS),
    }
    found = {}
    for name, measure in measured.items():
        say(LABELS[name])
        found[name] = measure()
    return found


def say(what: str) -> None:
    """Prints the progress to stderr."""
    print(what, file=sys.stderr, flush=True)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns all figures. Rates and times are medians; `spread` has the rest."""
    seconds = 0.1 if args.quick else 0.5
    load = os.getloadavg()[0]
    found = speeds(args.nodes, seconds)
    say(LABELS["pack_per_s"])
    found["pack_per_s"] = pack_per_s(args.trace_nodes, args.trace_arrivals, 1 if args.quick else REPEATS)
    say("memory, optimum")
    return {
        "nodes": args.nodes,
        "devices": args.nodes * PER_NODE,
        **{name: round(figure.median, 2) for name, figure in found.items()},
        "pack_on": args.trace_arrivals.name if args.trace_arrivals else "synthetic",
        "bytes_per_device": round(bytes_per_device(1_000)),
        "array_bytes_per_device": round(Fleet.of(fleet_nodes(1_000)).columns.nbytes / (1_000 * PER_NODE), 1),
        **script("optimum.py"),
        "growth": growth(seconds / 5),
        "spread": {name: asdict(figure) for name, figure in found.items()},
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }


LABELS = {
    "single_per_s": "single placements per second",
    "naive_single_per_s": "the same in simple Python",
    "gang8_per_s": "gangs of eight replicas per second",
    "mixed_per_s": "1, 2, 4 or 8 devices at 60 % occupancy, per second",
    "shared_per_s": "shares of a device per second",
    "churn_per_s": "cycles of an update, an end and a placement per second",
    "pack_per_s": "Pack, decisions per second",
    "rerank_ms": "a decision after every node changed, ms",
    "list_all_ms": "all devices listed in order, ms",
    "bytes_per_device": "memory per device, total, bytes",
    "array_bytes_per_device": "memory per device, arrays, bytes",
    "best_of_optimum": "Best, part of the optimum by exhaustive search",
    "partly_joined_best_of_optimum": "Best, where NVLinks are missing",
    "pack_of_optimum": "Pack, part of the optimum by exhaustive search",
    "first_fit_of_optimum": "first fit, part of the same",
    "best_fit_of_optimum": "best fit, part of the same",
}


def plot(points: Sequence[dict[str, float]]) -> str:
    """Returns an SVG of time over nodes with logarithmic axes. Lines parallel to the gray one are linear."""
    width, height, left, top = 560, 320, 70, 20

    def at(nodes: float, ms: float) -> str:
        x = left + (math.log10(nodes) - 2) / 1.7 * (width - left - 20)
        return f"{x:.1f},{top + (3 - math.log10(ms)) / 5 * (height - top - 40):.1f}"

    lines = [
        ("#c0392b", "build the fleet", [(p["nodes"], p["build_ms"]) for p in points]),
        ("#1e8449", "rank all devices", [(p["nodes"], p["rerank_ms"]) for p in points]),
        ("#2471a3", "one further decision", [(p["nodes"], p["again_us"] / 1_000) for p in points]),
        ("#bbbbbb", "linear", [(p["nodes"], p["nodes"] / 10_000) for p in points]),
    ]
    body = []
    for color, label, course in lines:
        x, y = at(*course[-1]).split(",")
        line = " ".join(at(*point) for point in course)
        body.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        body.append(f'<text x="{x}" y="{float(y) - 8}" text-anchor="end" fill="{color}">{label}</text>')
    for ms in (0.01, 0.1, 1, 10, 100, 1_000):
        x, y = at(100, ms).split(",")
        body.append(f'<text x="{left - 8}" y="{y}" text-anchor="end">{ms:g} ms</text>')
    for point in points:
        x, _ = at(point["nodes"], 0.01).split(",")
        body.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{point["nodes"]:,}</text>')
    style = 'font-family="sans-serif" font-size="11"'
    size = f'width="{width}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>' + "".join(body) + "</svg>\n"


def show(found: dict[str, Any]) -> None:
    """Prints the figures as a table."""
    print(f"{found['nodes']:,} nodes, {found['devices']:,} devices; by processor time of one thread")
    print(f"{'':<62}{'median':>12}{'min':>12}{'max':>12}{'wall clock':>12}")
    for key, label in LABELS.items():
        line = f"{label:<62}{found[key]:>12,}"
        if key in found["spread"]:
            figure = found["spread"][key]
            line += "".join(f"{round(figure[part], 2):>12,}" for part in ("low", "high", "wall"))
        print(line)
    print(f"{'Pack was timed on':<62}{found['pack_on']:>12}")
    print(f"{'nodes':>8}{'build, ms':>12}{'rank all, ms':>15}{'further, us':>14}")
    for point in found["growth"]:
        print(f"{point['nodes']:>8,}{point['build_ms']:>12,}{point['rerank_ms']:>15,}{point['again_us']:>14,}")
    print(f"load average: {found['load'][0]} before, {found['load'][1]} after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5_000, help="nodes of eight devices (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="shorten the repeats and run Pack once")
    parser.add_argument("--trace-nodes", type=Path, help="--nodes of bench/packing.py")
    parser.add_argument("--trace-arrivals", type=Path, help="--arrivals of bench/packing.py, one file")
    parser.add_argument("--plot", type=Path, help="write a plot of the growth as SVG")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    if (args.trace_nodes is None) != (args.trace_arrivals is None):
        parser.error("--trace-nodes and --trace-arrivals require each other")
    found = measure(args)
    if args.plot:
        args.plot.write_text(plot(found["growth"]))
    if args.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
