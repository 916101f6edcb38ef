"""Measures proposals of preemption on a fleet without a free device.

    uv run bench/preemption.py [--nodes 1000] [--repeats 7] [--json]

Each node has eight GPUs, and eight pods of priorities 0 to 3 that hold one each. Requests have priority 10. Processor
time of one proposal in milliseconds: the first one on a fleet, which also compares the request with all nodes, and
further ones after a node changed, as in the passes of the operator.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

from gpufleet_operator.placement import Fleet, propose
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, HolderPod, NodeState, PodNeeds, Request

GOAL_MS = 50.0
REQUESTS = {"1 GPU": (1, 1), "4 GPUs": (1, 4), "8 GPUs": (1, 8), "gang of 4 x 4 GPUs": (4, 4)}
"""Replicas, and devices of each."""
DEVICES = 8
PRIORITY = 10


def node(name: str, draw: random.Random) -> NodeState:
    """Returns a node whose devices are all held."""
    devices = tuple(
        DeviceState(
            uuid=f"GPU-{name}-{index}",
            index=index,
            model="any",
            memory_total_mib=81_559,
            memory_used_mib=60_000,
            utilization_percent=90,
            temperature_celsius=draw.randint(50, 80),
            held=True,
            process_count=1,
            sample_age_seconds=1.0,
        )
        for index in range(DEVICES)
    )
    needs = PodNeeds(cpu_milli=4_000, memory_bytes=2**34)
    holders = tuple(
        HolderPod(f"ml/{name}-{device.index}", draw.randrange(4), (device.uuid,), pod=needs, uid=device.uuid)
        for device in devices
    )
    return NodeState(name, devices, free_cpu_milli=8_000, free_memory_bytes=2**36, free_pods=50, holders=holders)


def measured(nodes: int, repeats: int, replicas: int, count: int) -> dict[str, float]:
    """Returns the milliseconds of the first proposal, and median and maximum of further ones."""
    draw = random.Random(7)
    states = [node(f"node-{number:05d}", draw) for number in range(nodes)]
    fleet = Fleet.of(states)
    needs = PodNeeds(cpu_milli=4_000, memory_bytes=2**34)
    request = Request(
        "bench/wanted", tuple(range(replicas)), DeviceNeeds(count), needs, gang=replicas > 1, priority=PRIORITY
    )
    times = []
    for repeat in range(repeats + 1):
        changed = states[repeat * 31 % nodes]
        fleet.put(replace(changed, free_cpu_milli=changed.free_cpu_milli + repeat))
        began = time.process_time()
        found = propose(fleet, request)
        times.append((time.process_time() - began) * 1000)
        if found is None or len(found.victims) != replicas * count:
            raise RuntimeError("the proposal has other victims than expected")
    return {
        "first_ms": round(times[0], 1),
        "median_ms": round(statistics.median(times[1:]), 1),
        "max_ms": round(max(times[1:]), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure proposals of preemption on a full fleet.")
    parser.add_argument("--nodes", type=int, default=1000, help="nodes with eight GPUs (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="further proposals (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args(arguments)
    found = {name: measured(options.nodes, options.repeats, *shape) for name, shape in REQUESTS.items()}
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'request':20} {'first':>8} {'median':>8} {'max':>8}   milliseconds; goal {GOAL_MS:.0f}")
    for name, times in found.items():
        print(f"{name:20} {times['first_ms']:8.1f} {times['median_ms']:8.1f} {times['max_ms']:8.1f}")


if __name__ == "__main__":
    main()
