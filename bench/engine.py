"""How fast the engine decides, how that grows with the fleet, and how good its picks are.

    uv run bench/engine.py [--json] [--nodes 5000] [--trace-nodes N.csv --trace-arrivals A.csv] [--plot growth.svg]

Every decision is made as the operator makes it: `place`, then the pick is debited with `Fleet.hold`, so the next
decision sees it. Rates are per second of processor time of one thread, so that a neighbour on the machine doesn't
count. Fleets are synthetic and seeded: nodes of eight devices, NVLink inside each half, random load, heat and power.
Beside it, in the same run, the same single placements by plain Python over lists of objects, as one would write it at
first. Pack is timed on a trace (bench/packing.py), or without one on a synthetic fleet and mix of the same kind.
Quality: Best and Pack against the optimum found by exhaustive search on small fleets.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from gpufleet_api.workload import Strategy, Topology
from gpufleet_operator.placement import Fleet, place, rank_devices
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, Pick, PodNeeds, Request, Share
from gpufleet_operator.placement.packing import Mix, PodType

GIB = 2**30
PER_NODE = 8
SIZES = (100, 250, 500, 1_000, 2_500, 5_000)
POD = PodNeeds(cpu_milli=4_000, memory_bytes=16 * GIB)
ONE = Request("bench/one", (0,), DeviceNeeds(min_free_memory_mib=20_000, max_temperature_celsius=88), POD)
GANG8 = Request("bench/gang", tuple(range(8)), ONE.devices, POD, gang=True)
LINKED = {n: Request(f"bench/{n}", (0,), DeviceNeeds(n), POD, topology=Topology.NVLINK) for n in (1, 2, 4)}
LINKED[8] = Request("bench/8", (0,), DeviceNeeds(8), POD)
SHARED = Request("bench/shared", (0,), DeviceNeeds(share=Share(10_000, 20)), PodNeeds(1_000, 4 * GIB))


def fleet_nodes(count: int, seed: int = 1) -> list[NodeState]:
    """Synthetic nodes; the seed decides load, heat and power."""
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
            nvlink_peers=frozenset(uuids[index // half * half : index // half * half + half]) - {uuid},
            process_count=0,
            sample_age_seconds=1.0,
        )
        for index, uuid in enumerate(uuids)
    )
    return NodeState(name, devices, free_cpu_milli=96_000, free_memory_bytes=1_024 * GIB, free_pods=110)


def per_second(decide: Callable[[], object], seconds: float = 2.0, least: int = 20) -> float:
    """Calls per second of processor time, over at least `seconds` of it."""
    calls, began = 0, time.process_time()
    while calls < least or time.process_time() - began < seconds:
        decide()
        calls += 1
    return calls / (time.process_time() - began)


def placing(fleet: Fleet, requests: Iterator[Request]) -> Callable[[], None]:
    """One decision and its debit; a fleet that is full is replaced by a copy of what it was at first."""
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
    """The same request again and again."""
    while True:
        yield request


def mixed(seed: int = 2) -> Iterator[Request]:
    """1, 2, 4 and 8 devices, joined by NVLink up to four."""
    draw = random.Random(seed)
    while True:
        yield LINKED[draw.choices((1, 2, 4, 8), (8, 4, 2, 1))[0]]


def occupied(nodes: Sequence[NodeState], part: float, seed: int = 3) -> Fleet:
    """A fleet of which this part of the devices is held, by pods of the mixed sizes placed at random."""
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
    """Telemetry of one node, one pod that ends, one placement: what a busy minute is made of."""
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


def rerank_ms(fleet: Fleet) -> float:
    """A full ranking of every device after every node has changed."""
    nodes = list(fleet.nodes.values())
    best = float("inf")
    for round_ in range(5):
        for node in nodes:
            warmer = [replace(d, temperature_celsius=30 + (d.index + round_) % 50) for d in node.devices]
            fleet.put(replace(node, devices=tuple(warmer)))
        began = time.process_time()
        place(fleet, replace(ONE, devices=DeviceNeeds(min_free_memory_mib=20_000 + round_)))
        best = min(best, 1_000 * (time.process_time() - began))
    return best


@dataclass
class PlainDevice:
    """A device as plain Python would have it."""

    state: DeviceState
    held: bool = False


class Plain:
    """Single placements as one writes them at first: every device of every node, for every decision."""

    def __init__(self, nodes: Sequence[NodeState]) -> None:
        self.nodes = {n.name: (n, [PlainDevice(d) for d in n.devices]) for n in nodes}
        self.free = {n.name: [n.free_cpu_milli, n.free_memory_bytes, n.free_pods] for n in nodes}

    def place(self, request: Request) -> None:
        """Filter, score, take the best."""
        best: tuple[float, str, PlainDevice] | None = None
        needs, pod = request.devices, request.pod
        for name, (_, devices) in self.nodes.items():
            cpu, memory, pods = self.free[name]
            if cpu < pod.cpu_milli or memory < pod.memory_bytes or pods < 1:
                continue
            for device in devices:
                state = device.state
                if device.held or not state.healthy or state.process_count:
                    continue
                total, used = state.memory_total_mib or 0, state.memory_used_mib or 0
                heat, power = state.temperature_celsius or 0, state.power_milliwatts or 0
                if total - used < (needs.min_free_memory_mib or 0) or heat > (needs.max_temperature_celsius or 1_000):
                    continue
                score = 0.4 * (1 - used / total) + 0.3 * (1 - (state.utilization_percent or 0) / 100)
                score += 0.2 * min(1.0, max(0.0, (90 - heat) / 60))
                score += 0.1 * (1 - power / (state.power_limit_milliwatts or 1))
                if best is None or score > best[0]:
                    best = (score, name, device)
        if best is not None:
            best[2].held = True
            room = self.free[best[1]]
            room[0], room[1], room[2] = room[0] - pod.cpu_milli, room[1] - pod.memory_bytes, room[2] - 1


def bytes_per_device(count: int) -> float:
    """Memory of the whole fleet object, caches of one question included, by device."""
    nodes = fleet_nodes(count)
    tracemalloc.start()
    fleet = Fleet.of(nodes)
    place(fleet, ONE)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / (count * PER_NODE)


def growth() -> list[dict[str, float]]:
    """By number of nodes, microseconds: the first decision on a question, which looks at every device, and one more."""
    found = []
    for count in SIZES:
        fleet = Fleet.of(fleet_nodes(count))
        place(fleet, ONE)
        again = 1e6 / per_second(placing(fleet, always(ONE)), 0.5)
        asked = [replace(ONE, devices=DeviceNeeds(min_free_memory_mib=10_000 + n)) for n in range(30)]
        first = min(_processor_us(place, fleet, request) for request in asked)
        found.append({"nodes": count, "first_us": round(first, 1), "again_us": round(again, 1)})
    return found


def _processor_us(call: Callable[..., object], *args: object) -> float:
    began = time.process_time()
    call(*args)
    return 1e6 * (time.process_time() - began)


def best_of_optimum(rounds: int = 50) -> float:
    """Two replicas of two joined devices on two nodes of four: the sum of their scores over the best there is."""
    draw, found, optimum = random.Random(5), 0.0, 0.0
    request = Request("bench/pairs", (0, 1), DeviceNeeds(2), POD, topology=Topology.NVLINK, gang=True)
    for _ in range(rounds):
        nodes = [replace(n, devices=n.devices[:4]) for n in (_node("a", draw), _node("b", draw))]
        found += sum(p.terms.total for p in place(Fleet.of(nodes), request).picks)
        score = {r.device: r.terms.total for r in rank_devices(Fleet.of(nodes))}
        pairs = [pair for n in nodes for pair in combinations([d.uuid for d in n.devices], 2)]
        both = [(a, b) for a, b in combinations(pairs, 2) if not set(a) & set(b)]
        optimum += max(sum(score[u] for pair in two for u in pair) / 2 for two in both)
    return found / optimum


def pack_of_optimum(rounds: int = 40, pods: int = 12) -> tuple[float, float]:
    """Pods that ask for shares of three devices, in order of arrival: what is allocated over the most there can be.

    The optimum knows all pods beforehand and may turn any of them away; the others take what fits when it comes.

    Returns:
        Pack, and first fit on the same arrivals.
    """
    draw = random.Random(6)
    shares = {810: 14, 470: 10, 320: 4, 650: 3, 230: 3, 160: 1}
    mix = Mix.of({PodType(0, 0, 1, milli): weight for milli, weight in shares.items()})
    packed = fitted = optimum = 0
    for _ in range(rounds):
        asked = draw.choices(list(shares), list(shares.values()), k=pods)
        packed += _packed(asked, mix)
        free = [1_000] * 3
        for milli in asked:
            at = next((i for i, f in enumerate(free) if f >= milli), None)
            if at is not None:
                free[at] -= milli
        fitted += 3_000 - sum(free)
        optimum += _most_allocated(asked)
    return packed / optimum, fitted / optimum


def _packed(asked: Sequence[int], mix: Mix) -> int:
    devices = [DeviceState(f"GPU-{i}", i, "any", 1_000, 0, 0, None, sample_age_seconds=0.0) for i in range(3)]
    fleet, allocated = Fleet.of([NodeState("a", tuple(devices), free_pods=99)]), 0
    for milli in asked:
        request = Request("bench/share", (0,), DeviceNeeds(share=Share(milli)), strategy=Strategy.PACK)
        for pick in place(fleet, request, mix).picks:
            fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
            allocated += milli
    return allocated


def _most_allocated(asked: Sequence[int]) -> int:
    """Over every way to put each pod on one of three devices, or nowhere."""
    states: set[tuple[int, ...]] = {(1_000, 1_000, 1_000)}
    for milli in asked:
        taken = [(s, i) for s in states for i, free in enumerate(s) if free >= milli]
        states |= {tuple(sorted((*s[:i], s[i] - milli, *s[i + 1 :]))) for s, i in taken}
    return 3_000 - min(map(sum, states))


def pack_per_s(nodes: Path | None, arrivals: Path | None) -> float:
    """Decisions per second of bench/packing.py, by its wall clock."""
    command = [sys.executable, str(Path(__file__).with_name("packing.py")), "--json"]
    given = nodes is not None and arrivals is not None
    command += ["--nodes", str(nodes), "--arrivals", str(arrivals)] if given else ["--synthetic"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)[0]["decisions_per_s"])


def measure(count: int, trace: tuple[Path | None, Path | None]) -> dict[str, object]:
    """Every figure."""
    nodes = fleet_nodes(count)
    fresh = Fleet.of(nodes)
    plain, points = Plain(nodes), growth()
    packed, fitted = pack_of_optimum()
    return {
        "nodes": count,
        "devices": count * PER_NODE,
        "single_per_s": round(per_second(placing(fresh.copy(), always(ONE)))),
        "naive_single_per_s": round(per_second(lambda: plain.place(ONE), least=5), 1),
        "gang8_per_s": round(per_second(placing(fresh.copy(), always(GANG8)))),
        "mixed_per_s": round(per_second(placing(occupied(nodes, 0.6), mixed()))),
        "shared_per_s": round(per_second(placing(fresh.copy(), always(SHARED)))),
        "churn_per_s": round(per_second(churning(fresh.copy()))),
        "pack_per_s": round(pack_per_s(*trace)),
        "rerank_ms": round(rerank_ms(fresh.copy()), 2),
        "list_all_ms": round(_processor_us(rank_devices, fresh.copy()) / 1_000, 2),
        "bytes_per_device": round(bytes_per_device(1_000)),
        "array_bytes_per_device": round(fresh.columns.nbytes / (count * PER_NODE), 1),
        "growth": round(points[-1]["first_us"] / points[0]["first_us"], 1),
        "growth_points": points,
        "best_of_optimum": round(best_of_optimum(), 4),
        "pack_of_optimum": round(packed, 4),
        "first_fit_of_optimum": round(fitted, 4),
    }


LABELS = {
    "single_per_s": "single placements per second",
    "naive_single_per_s": "the same in plain Python",
    "gang8_per_s": "gangs of eight replicas per second",
    "mixed_per_s": "1, 2, 4 or 8 devices at 60 % occupancy, per second",
    "shared_per_s": "shares of a device per second",
    "churn_per_s": "rounds of churn (an update, an end, a placement) per second",
    "pack_per_s": "Pack on a trace, decisions per second (wall clock)",
    "rerank_ms": "ranking after every node changed, ms",
    "list_all_ms": "all devices listed in order, ms",
    "bytes_per_device": "memory per device, all in all, bytes",
    "array_bytes_per_device": "of it arrays, bytes",
    "growth": "first decision, 5,000 nodes against 100 (linear: 50)",
    "best_of_optimum": "Best, of the optimum by exhaustive search",
    "pack_of_optimum": "Pack, of the optimum by exhaustive search",
    "first_fit_of_optimum": "first fit, of the same",
}


def plot(points: Sequence[dict[str, float]]) -> str:
    """Time of a decision over nodes, both axes logarithmic, as SVG."""
    width, height, left, top = 520, 320, 60, 20

    def at(nodes: float, us: float) -> str:
        x = left + (math.log10(nodes) - 2) / 1.7 * (width - left - 20)
        return f"{x:.1f},{top + (4.5 - math.log10(us)) / 3.5 * (height - top - 40):.1f}"

    body = []
    for key, color, label in (("first_us", "#c0392b", "first decision"), ("again_us", "#2471a3", "one more")):
        line = " ".join(at(p["nodes"], p[key]) for p in points)
        x, y = at(points[-1]["nodes"], points[-1][key]).split(",")
        body.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        body.append(f'<text x="{x}" y="{float(y) - 8}" text-anchor="end" fill="{color}">{label}</text>')
    for us in (10, 100, 1_000, 10_000):
        x, y = at(100, us).split(",")
        body.append(f'<text x="{left - 6}" y="{y}" text-anchor="end">{us:,} us</text>')
    for p in points:
        x, _ = at(p["nodes"], 10).split(",")
        body.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{p["nodes"]:,}</text>')
    style = 'font-family="sans-serif" font-size="11"'
    size = f'width="{width}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>' + "".join(body) + "</svg>\n"


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5_000, help="size of the fleet, eight devices each")
    parser.add_argument("--trace-nodes", type=Path, help="as of bench/packing.py")
    parser.add_argument("--trace-arrivals", type=Path, help="as of bench/packing.py")
    parser.add_argument("--plot", type=Path, help="write the growth as SVG")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    found = measure(args.nodes, (args.trace_nodes, args.trace_arrivals))
    points = found["growth_points"]
    if args.plot and isinstance(points, list):
        args.plot.write_text(plot(points))
    if args.json:
        print(json.dumps(found))
        return
    print(f"{found['nodes']:,} nodes, {found['devices']:,} devices; rates by processor time of one thread")
    for key, label in LABELS.items():
        print(f"{label:<62}{found[key]:>12,}")
    print("nodes, first decision on a question, one more (us):")
    for point in points if isinstance(points, list) else ():
        print(f"{point['nodes']:>8,}{point['first_us']:>12,}{point['again_us']:>12,}")


if __name__ == "__main__":
    main()
