"""Compares the picks of Best and Pack on small fleets with the optimum by exhaustive search.

    uv run bench/optimum.py [--rounds 40] [--json]

Best: two replicas of two devices connected by NVLink, on two nodes of four devices; the sum of the scores over the
highest possible sum. In one case all devices are connected. In the other, half of the links are missing, so a badly
chosen pair splits the rest; this case also shows in how many of the fleets with space for both replicas both were
placed. Pack: pods that request shares of three devices in sequence; the allocation over the maximum when all pods are
known in advance and any may be refused. First fit and best fit place the same pods for comparison.
"""

import argparse
import json
import random
from collections.abc import Sequence
from itertools import combinations

from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement import Fleet, place, rank_devices
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, PodNeeds, Request, Share
from gpufleet_operator.placement.packing import Mix, PodType

WHOLE = 1000
DEVICES = 3
SHARES = {810: 14, 470: 10, 320: 4, 650: 3, 230: 3, 160: 1}
"""Thousandths of a device -> relative frequency of requests, similar to the trace of bench/packing.py."""


def node(name: str, draw: random.Random, links: float = 1.0) -> NodeState:
    """Returns four devices with random load and heat; each pair is connected with probability `links`."""
    uuids = [f"GPU-{name}-{i}" for i in range(4)]
    joined = [set(pair) for pair in combinations(uuids, 2) if links == 1.0 or draw.random() < links]
    devices = [
        DeviceState(
            uuid=uuid,
            index=index,
            model="any",
            memory_total_mib=81_559,
            memory_used_mib=draw.randint(0, 30_000),
            utilization_percent=draw.randint(0, 40),
            temperature_celsius=draw.randint(28, 80),
            nvlink_peers=tuple(sorted({o for pair in joined if uuid in pair for o in pair} - {uuid})),
            process_count=0,
            sample_age_seconds=1.0,
        )
        for index, uuid in enumerate(uuids)
    ]
    return NodeState(name, tuple(devices), free_cpu_milli=96_000, free_memory_bytes=2**40, free_pods=110)


def best_of_optimum(rounds: int, seed: int = 5, links: float = 1.0) -> tuple[float, float]:
    """Returns the placed gangs' sum of scores over the optimum's, and the placed part of the placeable gangs."""
    draw, found, optimum, placed, possible = random.Random(seed), 0.0, 0.0, 0, 0
    needs = PodNeeds(cpu_milli=4_000, memory_bytes=2**34)
    request = Request("bench/pairs", (0, 1), DeviceNeeds(2), needs, topology=Topology.NVLINK, gang=True)
    for _ in range(rounds):
        nodes = [node("a", draw, links), node("b", draw, links)]
        score = {r.device: r.terms.total for r in rank_devices(Fleet.of(nodes))}
        pairs = {tuple(sorted((d.uuid, peer))) for n in nodes for d in n.devices for peer in d.nvlink_peers}
        both = [(a, b) for a, b in combinations(sorted(pairs), 2) if not set(a) & set(b)]
        picks = place(Fleet.of(nodes), request).picks
        possible += bool(both)
        if picks:
            placed += 1
            found += sum(p.terms.total for p in picks)
            optimum += max(sum(score[u] for pair in two for u in pair) / 2 for two in both)
    return found / optimum, placed / possible


def pack_of_optimum(rounds: int, pods: int = 12, seed: int = 6) -> dict[str, float]:
    """Returns for each rule its allocation over the optimum's."""
    draw = random.Random(seed)
    allocated = {"pack": 0, "first_fit": 0, "best_fit": 0}
    optimum = 0
    for _ in range(rounds):
        asked = draw.choices(list(SHARES), list(SHARES.values()), k=pods)
        allocated["pack"] += packed(asked)
        allocated["first_fit"] += fitted(asked, tightest=False)
        allocated["best_fit"] += fitted(asked, tightest=True)
        optimum += most_allocated(asked)
    return {f"{rule}_of_optimum": found / optimum for rule, found in allocated.items()}


def packed(asked: Sequence[int]) -> int:
    """Returns the thousandths that Pack allocates."""
    mix = Mix.of({PodType(0, 0, 1, milli): weight for milli, weight in SHARES.items()})
    devices = [DeviceState(f"GPU-{i}", i, "any", WHOLE, 0, 0, None, sample_age_seconds=0.0) for i in range(DEVICES)]
    fleet, allocated = Fleet.of([NodeState("a", tuple(devices), free_pods=99)]), 0
    for milli in asked:
        request = Request("bench/share", (0,), DeviceNeeds(share=Share(milli)), strategy=Strategy.PACK)
        for pick in place(fleet, request, mix).picks:
            fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
            allocated += milli
    return allocated


def fitted(asked: Sequence[int], *, tightest: bool) -> int:
    """Returns the thousandths allocated by first fit, or by best fit if `tightest`."""
    free = [WHOLE] * DEVICES
    for milli in asked:
        room = next((f for f in (sorted(free) if tightest else free) if f >= milli), None)
        if room is not None:
            free[free.index(room)] -= milli
    return DEVICES * WHOLE - sum(free)


def most_allocated(asked: Sequence[int]) -> int:
    """Returns the maximum allocation over all assignments of pods to devices or to none."""
    states: set[tuple[int, ...]] = {(WHOLE,) * DEVICES}
    for milli in asked:
        taken = [(s, i) for s in states for i, free in enumerate(s) if free >= milli]
        states |= {tuple(sorted((*s[:i], s[i] - milli, *s[i + 1 :]))) for s, i in taken}
    return DEVICES * WHOLE - min(map(sum, states))


def best_figures(rounds: int) -> dict[str, float]:
    """Returns the figures of Best with all devices connected and with half of the links missing."""
    joined, _ = best_of_optimum(rounds)
    partly, placed = best_of_optimum(rounds, links=0.5)
    return {"best_of_optimum": joined, "partly_joined_best_of_optimum": partly, "partly_joined_placed": placed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="number of random fleets (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args()
    found = best_figures(args.rounds) | pack_of_optimum(args.rounds)
    rounded = {name: round(value, 4) for name, value in found.items()}
    if args.json:
        print(json.dumps(rounded))
        return
    for name, value in rounded.items():
        print(f"{name.replace('_', ' '):<32}{value:>8}")


if __name__ == "__main__":
    main()
