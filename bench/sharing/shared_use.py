"""Jobs on shared GPUs that don't use what they promise, for the benchmarks of live telemetry and of own use.

`synthetic` describes the seeded synthetic use. Recorded use is of pods of an inference cluster with a GPU each: a job
replays the use of a pod at that time of day and promises the pod's mean use times an error.
"""

import argparse
import csv
import gzip
import random
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.model import Share

Use: TypeAlias = NDArray[np.float32]
"""(steps,): memory in MiB or compute in percent, from the job's start."""

STEP_SECONDS = 10
TOTAL_MIB = 81_920
GPUS_PER_NODE = 8
GIB = 1024
USAGE = Path("../shared/traces/genai-usage.csv.gz")
"""Default file of recorded use. Without it, only the synthetic part runs."""


@dataclass(frozen=True, slots=True)
class Job:
    """One arrival. Times are in steps of the grid."""

    start: int
    share: Share
    memory: Use
    compute: Use
    movable: bool = True
    template: str = ""
    """Jobs of one template use about the same; empty: none has the same template."""

    @property
    def end(self) -> int:
        """Returns the first step after its end."""
        return self.start + len(self.memory)


@dataclass(frozen=True, slots=True)
class Setting:
    """Number of nodes; in steps: duration, interval of samples, and delay until a sample is known."""

    nodes: int
    steps: int
    period: int
    delay: int

    def sample(self, now: int) -> int:
        """Returns the step of the latest sample known at `now`; negative if there is none."""
        return (now - self.delay) // self.period * self.period


Draws: TypeAlias = dict[str, tuple[Callable[[int], list[Job]], int]]
"""By name: draws jobs from a seed; the number of steps."""


def synthetic(seed: int, *, devices: int, steps: int, load: float) -> list[Job]:
    """Returns jobs with random (Poisson) arrivals whose promises are `load` times the capacity.

    - Promise: 4 to 40 GiB, and 10 to 50 % compute; three in ten promise no compute.
    - Lifetime: exponential with a mean of 2 h, at least 5 min.
    - Use of the promise: 80 to 100 % (half of the jobs), 20 to 60 % (3 in 10), 120 to 250 % (2 in 10), for memory and
      compute alike. Jobs that promise no compute use as much as the others.
    - Memory grows to that level within 1 to 10 min. Compute comes in bursts of about 2 min with pauses of the same
      length, so bursts are twice the mean level (at most 100 %).
    """
    draw = random.Random(seed)
    mean_life = 7200 // STEP_SECONDS
    drawn: list[tuple[Share, float, int, int]] = []
    while len(drawn) < 20_000:
        memory = draw.choice((4, 8, 8, 10, 16, 16, 20, 24, 40)) * GIB
        compute = draw.choice((10, 10, 20, 20, 25, 30, 50))
        kind = draw.random()
        uses = (
            draw.uniform(0.8, 1.0) if kind < 0.5 else draw.uniform(0.2, 0.6) if kind < 0.8 else draw.uniform(1.2, 2.5)
        )
        life = max(30, round(draw.expovariate(1 / mean_life)))
        promised = 0 if draw.random() < 0.3 else compute
        drawn.append((Share(memory, promised), uses, compute, life))
    per_job = statistics.fmean(max(s.memory_mib / TOTAL_MIB, s.compute_percent / 100) * n for s, _, _, n in drawn)
    jobs: list[Job] = []
    at = 0.0
    for share, uses, compute, life in drawn:
        at += draw.expovariate(load * devices / per_job)
        if at >= steps:
            return jobs
        ramp = draw.randint(60, 600) / STEP_SECONDS
        level = min(share.memory_mib * uses, TOTAL_MIB)
        memory_use = level * np.minimum(1, (1 + np.arange(life)) / ramp)
        jobs.append(
            Job(int(at), share, memory_use.astype(np.float32), _bursts(draw, min(100, 2 * compute * uses), life))
        )
    raise ValueError(f"{len(drawn)} jobs are too few for {steps} steps: reduce nodes or hours")


def _bursts(draw: random.Random, level: float, steps: int) -> Use:
    use = np.zeros(steps, np.float32)
    at = -draw.randint(0, 12)
    while at < steps:
        length = max(1, round(draw.expovariate(1 / 12)))
        use[max(0, at) : max(0, at + length)] = level
        at += length + max(1, round(draw.expovariate(1 / 12)))
    return use


Recording: TypeAlias = Mapping[str, tuple[Use, Use]]
"""Pod -> memory and compute at every step of the recorded day."""


@lru_cache(maxsize=1)
def read_usage(path: Path) -> Recording:
    """Returns the recording on the grid of steps. Each value applies until the next one."""
    rows: dict[str, list[tuple[float, float, float]]] = {}
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        for row in csv.DictReader(file):
            values = (row["t_seconds"], row["gpu_memory_used_mib"], row["gpu_utilization_percent"])
            rows.setdefault(row["pod"], []).append((float(values[0]), float(values[1]), float(values[2])))
    end = max(samples[-1][0] for samples in rows.values())
    grid = np.arange(0, end, STEP_SECONDS)
    found = {}
    for pod, samples in rows.items():
        table = np.array(samples)
        at = np.maximum(np.searchsorted(table[:, 0], grid, side="right") - 1, 0)
        found[pod] = (table[at, 1].astype(np.float32), table[at, 2].astype(np.float32))
    return found


def recorded(seed: int, recording: Recording, *, devices: int, load: float, shift: bool = False) -> list[Job]:
    """Returns jobs that replay the use of a recorded pod from their start to their end.

    With `shift`, each job replays the day from a time of its own instead of at its time of day: jobs of one pod then
    have the same form of use, but not the same use at the same moment.

    Promise: the pod's mean memory and mean utilization, each times an error (lognormal, sigma 0.35: two thirds are
    within 0.7 and 1.4 of the mean), rounded up to whole GiB and to steps of 5 %. Lifetime: exponential, mean 4 h.
    """
    draw, offsets, pods = random.Random(seed), random.Random(seed + 1_000_000), sorted(recording)
    steps = len(recording[pods[0]][0])
    means = {pod: (float(m.mean()), float(c.mean())) for pod, (m, c) in recording.items()}
    mean_life = 14_400 // STEP_SECONDS
    held = statistics.fmean(m for m, _ in means.values()) / TOTAL_MIB * mean_life
    jobs: list[Job] = []
    at = 0.0
    while True:
        at += draw.expovariate(load * devices / held)
        start = int(at)
        if start >= steps:
            return jobs
        pod = draw.choice(pods)
        memory, compute = recording[pod]
        end = min(steps, start + max(30, round(draw.expovariate(1 / mean_life))))
        gib = -(-means[pod][0] * draw.lognormvariate(0, 0.35) // GIB)
        percent = -(-means[pod][1] * draw.lognormvariate(0, 0.35) // 5) * 5
        share = Share(int(min(gib * GIB, TOTAL_MIB)), int(min(max(percent, 5), 100)))
        first = offsets.randrange(steps) if shift else start
        span = np.arange(first, first + end - start) % steps
        jobs.append(Job(start, share, memory[span], compute[span], template=pod))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `draws`, and --json."""
    usual = USAGE if USAGE.exists() else None
    parser.add_argument(
        "--usage", type=Path, default=usual, help=f"recorded use of pods (default: {USAGE} if it exists)"
    )
    parser.add_argument("--nodes", type=int, default=8, help=f"nodes of {GPUS_PER_NODE} GPUs (default: 8)")
    parser.add_argument("--hours", type=float, default=12, help="duration of synthetic arrivals (default: 12)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of tables")


def draws(parser: argparse.ArgumentParser, args: argparse.Namespace, load: float) -> Draws:
    """Returns the synthetic and, if there is a file of it, the recorded use. Exits if that of --usage is missing.

    Args:
        parser: Reports the error.
        args: The options of `add_options`.
        load: Promises over capacity; for recorded use, mean use over capacity.
    """
    devices, steps = args.nodes * GPUS_PER_NODE, round(args.hours * 3600 / STEP_SECONDS)
    found: Draws = {"synthetic": (lambda seed: synthetic(seed, devices=devices, steps=steps, load=load), steps)}
    if args.usage is None:
        print(f"no recorded use: {USAGE} not found (set --usage)", file=sys.stderr)
        return found
    if not args.usage.exists():
        parser.error(f"--usage {args.usage}: file not found")
    recording = read_usage(args.usage)
    day = len(next(iter(recording.values()))[0])
    found["recorded"] = (lambda seed: recorded(seed, recording, devices=devices, load=load), day)
    return found


def shifted(args: argparse.Namespace, load: float) -> Draws:
    """Returns the recorded use at random times of the day; nothing without a file of it. Call `draws` first."""
    if args.usage is None:
        return {}
    recording, devices = read_usage(args.usage), args.nodes * GPUS_PER_NODE
    day = len(next(iter(recording.values()))[0])
    return {"shifted": (lambda seed: recorded(seed, recording, devices=devices, load=load, shift=True), day)}
