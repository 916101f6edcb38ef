"""Measures what own use and moves are worth where GPUs are shared and jobs don't use what they promise.

    uv run bench/pressure.py [--usage genai-usage.csv.gz] [--uses synthetic recorded] [--seeds 100 101]
        [--strategy Best Pack] [--load 0.7 1.1] [--movable 0.5] [--restart-minutes 2 10 30] [--json]

Jobs and devices are those of `sharing/shared_use.py`, as for `telemetry_value.py`; the operator's engine places. The
other uses are recorded use at random times of the day (`shifted`) and those of `sharing/difficult_use.py`. The arms:

- promises: the engine sees idle devices and the promised shares.
- live: a device counts with the larger of its promises and the last sample.
- own: as with `reclaim: Used` for all jobs; each counts with its own maximum over ten minutes.
- move: as promises; a device above 98 % in four samples loses a job, as with `onPressure: Move` for all jobs.
- own+move: both.
- learned: as with `demand: Learned` for all jobs; each is placed by what earlier jobs of its template used.
- learned+move, learned+own+move: with moves, and with own use as well.
- clairvoyant: knows the future use of each job, and admits one if a device has room for all of it. Never moves. This
  shows how many hours fit without running out of memory; it is no strict limit, because it refuses nothing early.

A moved job has the same use on its new device. It loses the minutes of --restart-minutes. A device that is out of
memory stops one of its jobs as long as that lasts, and each time it begins to be, one job loses the same minutes: net
hours are the hours of the admitted jobs without all of these. The memory that the admitted jobs use together, compared
with that of all devices, shows what no placement could have served (`fleet`).
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import groupby

import numpy as np
from sharing.difficult_use import difficult
from sharing.learned_use import OBSERVED_STEPS, Runs
from sharing.pressure_result import Load, Result, Row, as_dicts, result, show
from sharing.shared_use import GPUS_PER_NODE, STEP_SECONDS, TOTAL_MIB, Job, Setting, add_options, draws, shifted

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.decide.pressure.candidates import MAX_TRIED, MIN_PERCENT
from gpufleet_operator.decide.pressure.observe import PRESSURE_PERCENT, PRESSURE_SAMPLES
from gpufleet_operator.decide.pressure.plan_moves import ROOM_PERCENT
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, Request, ScoreWeights, Share
from gpufleet_operator.placement.packing import MixEstimator, PodType

_DEVICE_REST = round(Limits().device_rest.total_seconds()) // STEP_SECONDS
_JOB_REST = round(Limits().replica_rest.total_seconds()) // STEP_SECONDS


class Arm(StrEnum):
    """What counts, and whether jobs are moved."""

    PROMISES = "promises"
    LIVE = "live"
    OWN = "own"
    MOVE = "move"
    OWN_MOVE = "own+move"
    LEARNED = "learned"
    LEARNED_MOVE = "learned+move"
    LEARNED_OWN_MOVE = "learned+own+move"
    CLAIRVOYANT = "clairvoyant"

    @property
    def counts_own_use(self) -> bool:
        """Returns True when a job that was observed for long enough counts with its own maximum."""
        return self in (Arm.OWN, Arm.OWN_MOVE, Arm.LEARNED_OWN_MOVE)

    @property
    def learns(self) -> bool:
        return self in (Arm.LEARNED, Arm.LEARNED_MOVE, Arm.LEARNED_OWN_MOVE)

    @property
    def moves(self) -> bool:
        return self in (Arm.MOVE, Arm.OWN_MOVE, Arm.LEARNED_MOVE, Arm.LEARNED_OWN_MOVE)


@dataclass(slots=True, eq=False)
class Holder:
    """A job on a device."""

    job: Job
    since: int
    """When it came to this device."""
    placed_mib: int
    """What it was placed with."""
    moved_at: int = -_JOB_REST

    def most_used_mib(self, sample: int) -> float:
        """Returns the maximum over the window, as far as it was observed on this device."""
        first = max(self.since, sample - OBSERVED_STEPS + 1) - self.job.start
        return float(self.job.memory[first : sample + 1 - self.job.start].max())

    def counted_mib(self, sample: int, *, reclaims: bool) -> int:
        """As `ledger.own_use` counts it."""
        used = round(self.most_used_mib(sample))
        return used if reclaims and sample - self.since >= OBSERVED_STEPS else max(used, self.placed_mib)


@dataclass(slots=True)
class TrackedGpu:
    """A device, with what the operator knows of it."""

    row: int
    holders: list[Holder] = field(default_factory=list)
    in_a_row: int = 0
    tried_at: int = -_DEVICE_REST

    @property
    def uuid(self) -> str:
        return f"GPU-{self.row:05}"

    @property
    def node(self) -> str:
        return f"node-{self.row // GPUS_PER_NODE:03}"


class Cluster:
    """Devices with their jobs, and the load of each device at every step."""

    def __init__(self, setting: Setting, arm: Arm) -> None:
        shape = (setting.nodes * GPUS_PER_NODE, setting.steps)
        self.load = Load.of(shape)
        self.moves = self.moves_within_promise = 0
        self._runs = Runs()
        self._setting, self._arm, self._sample = setting, arm, -1
        self._gpus = {gpu.uuid: gpu for gpu in map(TrackedGpu, range(shape[0]))}
        self._nodes = {name: list(gpus) for name, gpus in groupby(self._gpus.values(), lambda gpu: gpu.node)}
        self._fleet = Fleet.of(self._state(name) for name in self._nodes)
        self._outdated: set[str] = set()
        """Nodes that changed since the fleet was last read."""

    @property
    def fleet(self) -> Fleet:
        """As the operator knows it."""
        for name in sorted(self._outdated):
            self._fleet.put(self._state(name))
        self._outdated.clear()
        return self._fleet

    def advance(self, now: int) -> None:
        """Removes ended jobs, takes the newest sample, and moves jobs."""
        sample = self._setting.sample(now)
        fresh, self._sample = sample != self._sample and sample >= 0, sample
        for name, gpus in self._nodes.items():
            before = sum(len(gpu.holders) for gpu in gpus)
            for gpu in gpus:
                gpu.holders = [holder for holder in gpu.holders if holder.job.end > now]
            if fresh or before != sum(len(gpu.holders) for gpu in gpus):
                self._outdated.add(name)
        if fresh and self._arm.moves:
            for gpu in self._gpus.values():
                self._relieve(gpu, now)

    def admit(self, job: Job, uuid: str, now: int, share: Share) -> None:
        self._runs.add(job)
        self._add(Holder(job, now, share.memory_mib), self._gpus[uuid], now, share)

    def share(self, job: Job) -> Share:
        """Returns the share with which a job is placed."""
        learned = self._runs.demand_mib(job, self._sample) if self._arm.learns else None
        return job.share if learned is None else replace(job.share, memory_mib=learned)

    def _add(self, holder: Holder, gpu: TrackedGpu, now: int, share: Share) -> None:
        self.fleet.hold(gpu.node, [gpu.uuid], share=share)
        gpu.holders.append(holder)
        self._put(holder.job, gpu.row, now, 1)

    def _put(self, job: Job, row: int, now: int, sign: int) -> None:
        span = slice(now, min(job.end, self._setting.steps))
        part = slice(now - job.start, span.stop - job.start)
        self.load.memory[row, span] += sign * job.memory[part]
        self.load.compute[row, span] += sign * job.compute[part]
        self.load.jobs[row, span] += sign

    def foresee(self, job: Job) -> Sequence[str]:
        """Returns the device with the least room for all of the job's future use; none if there is no such device."""
        end = min(job.end, self._setting.steps)
        peaks = (self.load.memory[:, job.start : end] + job.memory[: end - job.start]).max(axis=1)
        promised = [sum(h.job.share.compute_percent for h in gpu.holders) for gpu in self._gpus.values()]
        fits = (peaks <= TOTAL_MIB) & (np.array(promised) + job.share.compute_percent <= 100)
        return [f"GPU-{int(np.where(fits, peaks, -1).argmax()):05}"] if fits.any() else []

    def _relieve(self, gpu: TrackedGpu, now: int) -> None:
        """Moves one job, if the device is above the limit in enough samples and does not rest."""
        full = self._seen(gpu) * 100 > PRESSURE_PERCENT * TOTAL_MIB
        gpu.in_a_row = gpu.in_a_row + 1 if full else 0
        if gpu.in_a_row < PRESSURE_SAMPLES or now - gpu.tried_at < _DEVICE_REST:
            return
        gpu.tried_at = now
        old = [h for h in gpu.holders if h.since <= self._sample and now - h.moved_at >= _JOB_REST and h.job.movable]
        uses = {id(h): h.most_used_mib(self._sample) for h in old}
        old = [h for h in old if 100 * uses[id(h)] > MIN_PERCENT * TOTAL_MIB]
        for holder in sorted(old, key=lambda h: h.job.share.memory_mib - uses[id(h)])[:MAX_TRIED]:
            promised = holder.job.share.memory_mib
            share = Share(round(max(promised, uses[id(holder)])), holder.job.share.compute_percent)
            target = self._target(gpu, share)
            if target is None:
                continue
            gpu.holders.remove(holder)
            self._put(holder.job, gpu.row, now, -1)
            # The place is for what it uses; its next reservation is like that of a new job.
            placed = self.share(holder.job).memory_mib
            self._add(Holder(holder.job, now, placed, now), target, now, share)
            self._outdated |= {gpu.node, target.node}
            self.moves += 1
            self.moves_within_promise += uses[id(holder)] <= promised
            return

    def _target(self, gpu: TrackedGpu, share: Share) -> TrackedGpu | None:
        needs = DeviceNeeds(share=share, exclude_uuids=frozenset({gpu.uuid}))
        request = Request("jobs/moved", (0,), needs, weights=ScoreWeights(1, 0, 0, 0))
        picks = place(self.fleet, request, explain=False).picks
        if not picks:
            return None
        (uuid,) = picks[0].devices
        device = next(d for d in self.fleet.nodes[picks[0].node].devices if d.uuid == uuid)
        used = (device.memory_in_use_mib or 0) + share.memory_mib
        return self._gpus[uuid] if 100 * used <= ROOM_PERCENT * TOTAL_MIB else None

    def _seen(self, gpu: TrackedGpu) -> int:
        return min(TOTAL_MIB, round(float(self.load.memory[gpu.row, self._sample])))

    def _state(self, name: str) -> NodeState:
        return NodeState(name, tuple(map(self._device, range(GPUS_PER_NODE), self._nodes[name])), free_pods=10_000)

    def _device(self, index: int, gpu: TrackedGpu) -> DeviceState:
        sample = self._sample
        seen = self._arm not in (Arm.PROMISES, Arm.MOVE) and sample >= 0
        old = [holder for holder in gpu.holders if holder.since <= sample]
        new = [holder for holder in gpu.holders if holder.since > sample]
        own, counts = self._arm.counts_own_use, self._arm.counts_own_use or self._arm.learns
        promised = sum(holder.placed_mib for holder in old)
        counted = sum(h.counted_mib(sample, reclaims=own) for h in old) if counts else promised
        return DeviceState(
            uuid=gpu.uuid,
            index=index,
            model="GPU",
            memory_total_mib=TOTAL_MIB,
            memory_used_mib=self._seen(gpu) if seen else 0,
            utilization_percent=min(100, round(float(self.load.compute[gpu.row, sample]))) if seen else 0,
            temperature_celsius=None,
            sharers=len(gpu.holders),
            promised_memory_mib=promised,
            promised_compute_percent=sum(holder.job.share.compute_percent for holder in old),
            reclaimed_memory_mib=promised - counted,
            in_flight_memory_mib=sum(holder.placed_mib for holder in new),
            in_flight_compute_percent=sum(holder.job.share.compute_percent for holder in new),
            process_count=0,
            sample_age_seconds=1.0,
        )


def run(jobs: Sequence[Job], arm: Arm, strategy: Strategy, setting: Setting) -> Result:
    """Places every job on its arrival, and moves jobs after each sample."""
    cluster, census, admitted = Cluster(setting, arm), MixEstimator(), 0
    arrivals: dict[int, list[Job]] = {}
    for job in jobs:
        arrivals.setdefault(job.start, []).append(job)
    known = {step + setting.delay for step in range(0, setting.steps, setting.period)}
    for now in sorted(known | arrivals.keys()):
        if now >= setting.steps:
            break
        cluster.advance(now)
        for job in arrivals.get(now, ()):
            share = cluster.share(job)
            request = Request("jobs/new", (0,), DeviceNeeds(share=share), strategy=strategy)
            for uuid in _picks(cluster, arm, request, census, job):
                cluster.admit(job, uuid, now, share)
                admitted += 1
            if strategy is Strategy.PACK:
                census.observe(PodType.of(request, TOTAL_MIB))
    return result(cluster.load, admitted, cluster.moves, cluster.moves_within_promise)


def _picks(cluster: Cluster, arm: Arm, request: Request, census: MixEstimator, job: Job) -> Sequence[str]:
    if arm is Arm.CLAIRVOYANT:
        return cluster.foresee(job)
    return [pick.devices[0] for pick in place(cluster.fleet, request, census.mix, explain=False).picks]


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Measure own use and moves on shared GPUs.")
    add_options(parser)
    parser.add_argument("--uses", nargs="+", default=["synthetic", "recorded"], help="default: synthetic recorded")
    parser.add_argument("--load", type=float, nargs="+", default=[1.1], help="promises over capacity (default: 1.1)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 105)), help="draws of arrivals")
    parser.add_argument("--strategy", nargs="+", default=["Best", "Pack"], help="Best, Pack (default: both)")
    parser.add_argument("--arms", nargs="+", default=[str(arm) for arm in Arm], help="default: all")
    parser.add_argument("--movable", type=float, default=1.0, help="part of the jobs that may be moved (default: 1)")
    help_text = "work that a stopped job loses (default: 2 10 30)"
    parser.add_argument("--restart-minutes", type=float, nargs="+", default=[2, 10, 30], help=help_text)
    args = parser.parse_args()
    rows: list[Row] = []
    for load in args.load:
        found = draws(parser, args, load) | shifted(args, load)
        devices, steps = args.nodes * GPUS_PER_NODE, round(args.hours * 3600 / STEP_SECONDS)
        found |= difficult(devices=devices, steps=steps, load=load)
        for name in args.uses:
            if name not in found:
                parser.error(f"--uses: {name!r}: must be one of {', '.join(found)}")
            draw, steps = found[name]
            for seed in args.seeds:
                jobs = movable(draw(seed), args.movable, seed)
                for strategy in map(Strategy, args.strategy):
                    for arm in map(Arm, args.arms):
                        outcome = run(jobs, arm, strategy, Setting(args.nodes, steps, 3, 1))
                        rows.append(Row(name, load, args.movable, seed, strategy.value, arm.value, outcome))
                        print(json.dumps(asdict(rows[-1])), file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps({"settings": {**vars(args), "usage": args.usage and str(args.usage)}, "rows": as_dicts(rows)}))
        return
    show(rows, args.restart_minutes)


def movable(jobs: Sequence[Job], part: float, seed: int) -> Sequence[Job]:
    """Returns the jobs, a random part of which may be moved."""
    draw = random.Random(seed)
    return [replace(job, movable=draw.random() < part) for job in jobs]


if __name__ == "__main__":
    main()
