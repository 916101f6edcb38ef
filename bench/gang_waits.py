"""Replays a production trace with departures and gangs, and reports how long gangs wait.

    uv run bench/gang_waits.py --nodes N.csv --arrivals A.csv [--share 0.1] [--hours 8] [--gang 4 8] [--json]

Pods with GPUs are drawn with replacement from the trace, as in bench/mixes.py, and arrive at random so that they
request a load of the GPUs; every tenth GPU of the load is of gangs, four pods with eight GPUs each by default. A pod
ends after a random time. Each pass places what waits, in the order of the operator's queue: it decides with `choose`,
`soonest` and `use_by_namespace` of the operator, for all pods of equal priority and without deadlines. Seven tenths of
the workloads are of one namespace, the rest of three others.

The four runs, with the same arrivals: with and without earmarks (--reserve-after 120 s), with and without fairness.
Figures leave out the first two hours. A gang that waits at the end counts with its wait so far.
"""

import argparse
import heapq
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from time import process_time

import numpy as np
from packing import WHOLE, Arrival, mix_of, read_arrivals, read_nodes

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.decide.queue.contenders import QueuedWorkload, choose
from gpufleet_operator.decide.queue.namespace_use import WINDOW, use_by_namespace
from gpufleet_operator.model.state_types import DeviceUse, Limits
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.contention.removal import without
from gpufleet_operator.placement.contention.soonest import soonest
from gpufleet_operator.placement.model import DeviceNeeds, HolderPod, NodeState, Pick, PodNeeds, Request
from gpufleet_operator.placement.packing import Mix

START = datetime(2026, 1, 1, tzinfo=UTC)
WARM_UP_HOURS = 2.0
PASS_SECONDS = 10.0
POD_HOURS, GANG_HOURS = 0.5, 1.0
"""Mean times until a pod ends; exponentially distributed."""
GANG_SHARE = 0.1
"""Part of the load."""
NAMESPACES: Mapping[str, float] = {"heavy": 0.7, "a": 0.1, "b": 0.1, "c": 0.1}
RESERVE_AFTER = timedelta(seconds=120)
NEVER = timedelta(days=10_000)


@dataclass(frozen=True, slots=True)
class Job:
    """A workload: one pod or a gang. Times are hours."""

    name: str
    namespace: str
    request: Request
    arrival: float
    duration: float

    @property
    def devices(self) -> float:
        """Returns the requested GPUs of all replicas."""
        return len(self.request.replicas) * _devices(self.request)

    @property
    def created(self) -> datetime:
        return START + timedelta(hours=self.arrival)

    @property
    def queued(self) -> QueuedWorkload:
        request = self.request
        several = request.gang or request.devices.count > 1
        return QueuedWorkload(self.name, (0, self.created, self.name), 0, self.created, several, preempts=False)


@dataclass(slots=True)
class Outcome:
    """One run. Waits are in minutes."""

    earmarks: bool
    fairness: bool
    gangs: int = 0
    gangs_waiting: int = 0
    """At the end."""
    gang_p50: float = 0.0
    gang_p95: float = 0.0
    gang_max: float = 0.0
    heavy_p95: float = 0.0
    others_p95: float = 0.0
    """95th percentile of single pods of the heavy namespace, and of the others."""
    allocated_percent: float = 0.0
    cpu_seconds: float = 0.0


def _devices(request: Request) -> float:
    needs = request.devices
    return needs.count * (1.0 if needs.share is None else needs.share.memory_mib / WHOLE)


@dataclass(frozen=True, slots=True)
class Demand:
    """What arrives."""

    load: float
    """Requested GPUs in relation to those of the fleet."""
    hours: float
    gang: tuple[int, int] = (4, 8)
    """Number of pods of a gang, and the GPUs of each."""
    seed: int = 1


def jobs(requests: Sequence[Request], devices: int, demand: Demand) -> list[Job]:
    """Returns the arrivals in order.

    Args:
        requests: Pods of the trace.
        devices: Number of GPUs of the fleet.
        demand: What arrives.
    """
    draw, mean = random.Random(demand.seed), sum(map(_devices, requests)) / len(requests)
    replicas, each = demand.gang
    gang = Request(
        "gang", tuple(range(replicas)), DeviceNeeds(each), PodNeeds(cpu_milli=1_000), Strategy.PACK, gang=True
    )
    offered = demand.load * devices
    rates = (
        (1 - GANG_SHARE) * offered / (mean * POD_HOURS),
        GANG_SHARE * offered / (replicas * each * GANG_HOURS),
    )
    found: list[Job] = []
    for rate, is_gang in zip(rates, (False, True), strict=True):
        at = draw.expovariate(rate)
        while at < demand.hours:
            request = gang if is_gang else draw.choice(requests)
            namespace = draw.choices(list(NAMESPACES), list(NAMESPACES.values()))[0]
            duration = draw.expovariate(1 / (GANG_HOURS if is_gang else POD_HOURS))
            found.append(Job(f"{len(found):06}", namespace, request, at, duration))
            at += draw.expovariate(rate)
    return sorted(found, key=lambda job: job.arrival)


@dataclass
class Replay:
    """One run.

    Args:
        nodes: The fleet.
        limits: Settings of the operator.
    """

    nodes: Sequence[NodeState]
    limits: Limits
    fleet: Fleet = field(init=False)
    waiting: dict[str, Job] = field(default_factory=dict)
    waits: list[tuple[Job, float]] = field(default_factory=list)
    """Each placed job, and its wait in hours."""
    use: dict[str, DeviceUse] = field(default_factory=dict)
    ends: list[tuple[float, int, Job, list[tuple[str, HolderPod]]]] = field(default_factory=list)
    held: float = 0.0

    def __post_init__(self) -> None:
        self.fleet = Fleet.of(self.nodes)
        self._number = count()

    def run(self, arrivals: Sequence[Job], hours: float) -> float:
        """Replays all passes; returns the mean of the allocated GPUs after the warm-up."""
        mix = mix_of(tuple(Arrival(0, job.request) for job in arrivals))
        at, levels = 0, []
        for step in range(int(hours * 3600 / PASS_SECONDS)):
            now = step * PASS_SECONDS / 3600
            changed = self._end(now)
            while at < len(arrivals) and arrivals[at].arrival <= now:
                self.waiting[arrivals[at].name] = arrivals[at]
                at, changed = at + 1, True
            if self.waiting and (changed or step % 6 == 0):
                self._pass(now, mix)
            if now >= WARM_UP_HOURS:
                levels.append(self.held)
        return float(np.mean(levels))

    def _end(self, now: float) -> bool:
        ended = False
        while self.ends and self.ends[0][0] <= now:
            _, _, job, pods = heapq.heappop(self.ends)
            for node, holder in pods:
                self.fleet.put(without(self.fleet.nodes[node], [holder]))
            self.held -= job.devices
            self.use[job.name] = replace(self.use[job.name], until=START + timedelta(hours=now))
            ended = True
        return ended

    def _pass(self, now: float, mix: Mix) -> None:
        moment = START + timedelta(hours=now)
        self.fleet.clear_earmarks()
        contenders = choose(
            [job.queued for job in self.waiting.values()],
            self.limits,
            moment,
            lowest=lambda: None,
            is_valid=lambda _: True,
        )
        earmarked, failed = False, set()
        for job in self._ordered(frozenset(contenders.heads), moment):
            if id(job.request) in failed and job.name not in contenders.heads:
                continue
            decision = place(self.fleet, job.request, mix, explain=False)
            if not decision.unplaced:
                self._start(job, decision.picks, now)
                continue
            failed.add(id(job.request))  # equal pods share one request
            if job.name in contenders.heads and not earmarked:
                found = soonest(self.fleet, job.request, mix)
                if found is not None:
                    earmarked = True
                    self.fleet.earmark([u for uuids in found.devices.values() for u in uuids], job.name)
        self.fleet.clear_earmarks()

    def _ordered(self, heads: frozenset[str], moment: datetime) -> Iterator[Job]:
        """Yields what waits, as `QueueOrder` does: the use of a namespace grows with each pick."""
        self.use = {n: u for n, u in self.use.items() if u.until is None or moment < u.until + WINDOW}
        fair = self.limits.fair_namespaces
        base = use_by_namespace(self.use.values(), moment) if fair else {}
        started = len(self.waits)

        def key(job: Job) -> tuple[bool, float, float]:
            is_head = job.name in heads
            if not fair or is_head:
                return not is_head, 0.0, job.arrival
            picked = sum(j.devices for j, _ in self.waits[started:] if j.namespace == job.namespace)
            return True, base.get(job.namespace, 0.0) + picked, job.arrival

        heap = [(key(job), job.name) for job in self.waiting.values()]
        heapq.heapify(heap)
        while heap:
            at, name = heapq.heappop(heap)
            current = key(self.waiting[name])
            if current > at:
                heapq.heappush(heap, (current, name))
            else:
                yield self.waiting[name]

    def _start(self, job: Job, picks: Sequence[Pick], now: float) -> None:
        pods: list[tuple[str, HolderPod]] = []
        request = job.request
        for pick in picks:
            node, devices = pick.node, pick.devices
            self.fleet.hold(node, devices, request.pod, request.devices.share)
            holder = HolderPod(f"{job.name}-{len(pods)}", 0, tuple(devices), request.devices.share, request.pod)
            state = self.fleet.nodes[node]
            self.fleet.put(replace(state, holders=(*state.holders, holder)))
            pods.append((node, holder))
        heapq.heappush(self.ends, (now + job.duration, next(self._number), job, pods))
        self.use[job.name] = DeviceUse(job.namespace, job.devices, START + timedelta(hours=now), None)
        self.held += job.devices
        self.waits.append((job, now - job.arrival))
        del self.waiting[job.name]


def measure(
    nodes: Sequence[NodeState], arrivals: Sequence[Job], hours: float, *, earmarks: bool, fair: bool
) -> Outcome:
    """Runs one replay."""
    limits = Limits(reserve_after=RESERVE_AFTER if earmarks else NEVER, fair_namespaces=fair, preemption=False)
    replay, began = Replay(nodes, limits), process_time()
    held = replay.run(arrivals, hours)
    late = [(job, hours - job.arrival) for job in replay.waiting.values()]
    waits = [(job, 60 * max(0.0, wait)) for job, wait in (*replay.waits, *late) if job.arrival >= WARM_UP_HOURS]
    gangs = [wait for job, wait in waits if job.request.gang]
    singles = {True: [0.0], False: [0.0]}
    for job, wait in waits:
        if not job.request.gang:
            singles[job.namespace == "heavy"].append(wait)
    p50, p95, most = (float(np.percentile(gangs or [0.0], q)) for q in (50, 95, 100))
    return Outcome(
        earmarks,
        fair,
        len(gangs),
        sum(job.request.gang for job, _ in late),
        round(p50, 1),
        round(p95, 1),
        round(most, 1),
        round(float(np.percentile(singles[True], 95)), 1),
        round(float(np.percentile(singles[False], 95)), 1),
        round(100 * held / sum(len(node.devices) for node in nodes), 1),
        round(process_time() - began, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=Path, required=True, help="file in the format of bench/packing.py")
    parser.add_argument("--arrivals", type=Path, required=True, help="file in the format of bench/packing.py")
    parser.add_argument("--share", type=float, default=0.1, help="part of the nodes that is used (default: 0.1)")
    parser.add_argument("--hours", type=float, default=8.0, help="simulated time (default: 8)")
    parser.add_argument("--load", type=float, default=0.9, help="requested GPUs / GPUs (default: 0.9)")
    parser.add_argument(
        "--gang", type=int, nargs=2, default=[4, 8], metavar=("PODS", "GPUS"), help="size of the gangs (default: 4 8)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the draws (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    every = round(1 / args.share)
    nodes = read_nodes(args.nodes)[::every]
    devices = sum(len(node.devices) for node in nodes)
    # Pods without GPUs are no workloads of gpufleet: what they take of a node is not known to end.
    requests = [a.request for a in read_arrivals(args.arrivals, Strategy.PACK) if a.request.devices.count]
    replicas, each = args.gang
    arrivals = jobs(requests, devices, Demand(args.load, args.hours, (replicas, each), args.seed))
    if not args.json:
        print(f"{len(nodes)} nodes, {devices} GPUs, {len(arrivals)} workloads, load {args.load}; waits in minutes")
        print("earmarks fairness  gangs  waiting    p50    p95    max   pods p95: heavy  others  allocated %  CPU s")
    found: list[Outcome] = []
    for earmarks, fair in ((False, False), (True, False), (False, True), (True, True)):
        one = measure(nodes, arrivals, args.hours, earmarks=earmarks, fair=fair)
        found.append(one)
        if not args.json:
            print(
                f"{one.earmarks!s:<9}{one.fairness!s:<9}{one.gangs:>6}{one.gangs_waiting:>9}{one.gang_p50:>7}"
                f"{one.gang_p95:>7}{one.gang_max:>7}{one.heavy_p95:>17}{one.others_p95:>8}"
                f"{one.allocated_percent:>13}{one.cpu_seconds:>7}",
                flush=True,
            )
    if args.json:
        json.dump([asdict(one) for one in found], sys.stdout)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
