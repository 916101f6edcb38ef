"""Measures the value of live telemetry where GPUs are shared and jobs don't use what they promise.

    uv run bench/telemetry_value.py [--usage genai-usage.csv.gz] [--seeds 5] [--json]

The operator's engine places the same arrivals three times. The load of each device is the sum of the jobs' real use:

- promises: the engine sees idle devices and the promised shares.
- live: the engine also sees samples. A device counts as used by its promises or by the observed use, whichever is
  larger, plus the shares picked after the sample. Samples are taken every --sample-seconds and known --delay-seconds
  later. Like NVML's, they show at most 100 % and at most the device's memory.
- equal: by promises, but a job is refused if `live` had not admitted more jobs by then. Fewer jobs cause less overload;
  this column excludes that effect.

A refused job doesn't return, and no job is slowed down or killed, so an overload lasts.

`sharing/shared_use.py` describes the jobs.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from sharing.shared_use import GPUS_PER_NODE, STEP_SECONDS, TOTAL_MIB, Job, Setting, Use, add_options, draws

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, Request
from gpufleet_operator.placement.packing import MixEstimator, PodType


class Arm(StrEnum):
    """The information that the engine uses."""

    PROMISES = "promises"
    LIVE = "live"
    EQUAL = "equal"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. Percentages are of the device-time with jobs; `job_time` is of the jobs' time."""

    arm: Arm
    strategy: Strategy
    admitted: int
    over_compute_percent: float
    over_memory_percent: float
    over_percent: float
    job_time_over_percent: float
    devices_in_use: float
    jobs_per_device_in_use: float


@dataclass(slots=True)
class _Device:
    row: int
    holders: list[Job] = field(default_factory=list)


class Cluster:
    """Devices, their jobs, and their load at every step."""

    def __init__(self, setting: Setting, *, live: bool) -> None:
        shape = (setting.nodes * GPUS_PER_NODE, setting.steps)
        self.memory: Use = np.zeros(shape, np.float32)
        self.compute: Use = np.zeros(shape, np.float32)
        self.jobs: NDArray[np.int16] = np.zeros(shape, np.int16)
        self._setting, self._live = setting, live
        self._nodes = {
            f"node-{n:03}": [_Device(n * GPUS_PER_NODE + g) for g in range(GPUS_PER_NODE)] for n in range(setting.nodes)
        }
        self._devices = {f"GPU-{d.row:05}": d for devices in self._nodes.values() for d in devices}
        self._sample = -1
        self.fleet = Fleet.of(self._state(name, 0) for name in self._nodes)

    def advance(self, now: int) -> None:
        """Removes ended jobs and updates the fleet with the facts known at `now`."""
        sample = self._setting.sample(now)
        stale = self._live and sample != self._sample
        for name, devices in self._nodes.items():
            left = False
            for device in devices:
                staying = [job for job in device.holders if job.end > now]
                left |= len(staying) != len(device.holders)
                device.holders = staying
            if left or stale:
                self.fleet.put(self._state(name, now))
        self._sample = sample

    def admit(self, job: Job, node: str, uuid: str) -> None:
        """Debits the pick immediately and adds the job's real use from its start."""
        self.fleet.hold(node, [uuid], share=job.share)
        device = self._devices[uuid]
        device.holders.append(job)
        span = slice(job.start, min(job.end, self._setting.steps))
        length = span.stop - span.start
        self.memory[device.row, span] += job.memory[:length]
        self.compute[device.row, span] += job.compute[:length]
        self.jobs[device.row, span] += 1

    def _state(self, name: str, now: int) -> NodeState:
        sample = self._setting.sample(now)
        devices = tuple(self._device(i, d, sample) for i, d in enumerate(self._nodes[name]))
        return NodeState(name, devices, free_pods=10_000)

    def _device(self, index: int, device: _Device, sample: int) -> DeviceState:
        seen = self._live and sample >= 0
        old = [job.share for job in device.holders if job.start <= sample]
        new = [job.share for job in device.holders if job.start > sample]
        return DeviceState(
            uuid=f"GPU-{device.row:05}",
            index=index,
            model="GPU",
            memory_total_mib=TOTAL_MIB,
            memory_used_mib=min(TOTAL_MIB, round(float(self.memory[device.row, sample]))) if seen else 0,
            utilization_percent=min(100, round(float(self.compute[device.row, sample]))) if seen else 0,
            temperature_celsius=None,
            sharers=len(device.holders),
            promised_memory_mib=sum(share.memory_mib for share in old),
            promised_compute_percent=sum(share.compute_percent for share in old),
            in_flight_memory_mib=sum(share.memory_mib for share in new),
            in_flight_compute_percent=sum(share.compute_percent for share in new),
            process_count=0,
            sample_age_seconds=1.0,
        )


def run(
    jobs: Sequence[Job], arm: Arm, strategy: Strategy, setting: Setting, allowed: Sequence[int] = ()
) -> tuple[Outcome, list[int]]:
    """Places every job on arrival. Returns the outcome and the number of admitted jobs after each arrival.

    `allowed` is this list from another run. Arm `equal` doesn't exceed it.
    """
    cluster, census = Cluster(setting, live=arm is Arm.LIVE), MixEstimator()
    admitted: list[int] = []
    for at, job in enumerate(jobs):
        so_far = admitted[-1] if admitted else 0
        request = Request(f"jobs/{at}", (0,), DeviceNeeds(share=job.share), strategy=strategy)
        cluster.advance(job.start)
        if arm is not Arm.EQUAL or so_far < allowed[at]:
            picks = place(cluster.fleet, request, census.mix, explain=False).picks
            for pick in picks:
                cluster.admit(job, pick.node, pick.devices[0])
            so_far += len(picks)
        if strategy is Strategy.PACK:
            census.observe(PodType.of(request, TOTAL_MIB))
        admitted.append(so_far)
    return _outcome(cluster, arm, strategy, admitted[-1]), admitted


def _outcome(cluster: Cluster, arm: Arm, strategy: Strategy, admitted: int) -> Outcome:
    busy = cluster.jobs > 0
    compute = busy & (cluster.compute > 100.5)
    memory = busy & (cluster.memory > TOTAL_MIB + 0.5)
    either, in_use = compute | memory, int(busy.sum())
    return Outcome(
        arm,
        strategy,
        admitted,
        100 * int(compute.sum()) / in_use,
        100 * int(memory.sum()) / in_use,
        100 * int(either.sum()) / in_use,
        100 * int(cluster.jobs[either].sum()) / int(cluster.jobs.sum()),
        in_use / busy.shape[1],
        int(cluster.jobs.sum()) / in_use,
    )


def compare(draw: Callable[[int], Sequence[Job]], seeds: int, setting: Setting) -> list[dict[str, object]]:
    """Returns one row for each seed, strategy and arm, as `--json` prints them."""
    rows: list[dict[str, object]] = []
    for seed in range(seeds):
        jobs = draw(seed)
        for strategy in (Strategy.BEST, Strategy.PACK):
            allowed: list[int] = []
            for arm in (Arm.PROMISES, Arm.LIVE, Arm.EQUAL):
                outcome, so_far = run(jobs, arm, strategy, setting, allowed)
                allowed = so_far if arm is Arm.LIVE else allowed
                rows.append({"seed": seed, "offered": len(jobs), **asdict(outcome)})
    return rows


_SHOWN = (
    ("jobs admitted", "admitted", 0),
    ("devices in use, mean", "devices_in_use", 1),
    ("jobs per device in use", "jobs_per_device_in_use", 2),
    ("device-time over 100 % compute, %", "over_compute_percent", 2),
    ("device-time out of memory, %", "over_memory_percent", 2),
    ("device-time with either, %", "over_percent", 2),
    ("job-time on such a device, %", "job_time_over_percent", 2),
)


def show(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Prints medians over the seeds, with minimum and maximum."""
    offered = statistics.median(int(str(row["offered"])) for row in rows)
    print(f"\n{name}: {offered:.0f} jobs offered (median of {len({row['seed'] for row in rows})} seeds)")
    for strategy in dict.fromkeys(str(row["strategy"]) for row in rows):
        print(f"  {strategy:36}" + "".join(f"{arm.value:>24}" for arm in Arm))
        for title, key, digits in _SHOWN:
            cells = []
            for arm in Arm:
                values = [float(str(r[key])) for r in rows if (r["strategy"], r["arm"]) == (strategy, arm)]
                low, middle, high = min(values), statistics.median(values), max(values)
                cells.append(f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})")
            print(f"  {title:36}" + "".join(f"{cell:>24}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the value of live telemetry on shared GPUs.")
    add_options(parser)
    parser.add_argument("--load", type=float, default=1.1, help="promises over capacity (default: 1.1)")
    parser.add_argument("--seeds", type=int, default=5, help="draws of arrivals (default: 5)")
    parser.add_argument(
        "--sample-seconds", type=int, default=30, help="interval of samples (default: 30, the heartbeat)"
    )
    parser.add_argument("--delay-seconds", type=int, default=10, help="until the operator has a sample (default: 10)")
    args = parser.parse_args()
    live = max(1, args.sample_seconds // STEP_SECONDS), -(-args.delay_seconds // STEP_SECONDS)
    results = {
        name: compare(draw, args.seeds, Setting(args.nodes, steps, *live))
        for name, (draw, steps) in draws(parser, args, args.load).items()
    }
    if args.json:
        print(json.dumps({"settings": {**vars(args), "usage": args.usage and str(args.usage)}, **results}))
        return
    for name, rows in results.items():
        show(name, rows)


if __name__ == "__main__":
    main()
