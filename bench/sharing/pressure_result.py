"""What a run of `pressure.py` costs, and its table."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sharing.shared_use import STEP_SECONDS, TOTAL_MIB, Use

STEPS_PER_HOUR = 3600 // STEP_SECONDS
BASELINE = "promises"


@dataclass(frozen=True, slots=True)
class Load:
    """(devices, steps): memory in MiB, compute in percent, number of jobs."""

    memory: Use
    compute: Use
    jobs: NDArray[np.int16]

    @classmethod
    def of(cls, shape: tuple[int, int]) -> "Load":
        """Returns an empty load."""
        return cls(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int16))


@dataclass(frozen=True, slots=True)
class Result:
    """One run. Percentages are of the device-time with jobs, if not stated otherwise."""

    admitted: int
    hours: float
    """Of the admitted jobs."""
    out_of_memory_hours: float
    out_of_memory_times: int
    """How often a device began to be out of memory."""
    out_of_memory_percent: float
    over_compute_percent: float
    unserved_compute_percent: float
    """Of the demand."""
    fleet_peak_percent: float
    """Memory that all jobs use together at most, of all devices."""
    fleet_excess_percent: float
    """Part of the jobs' memory-hours that exceeds all devices together."""
    moves: int
    moves_within_promise: int

    def net_hours(self, restart_minutes: float) -> float:
        """Returns the hours without those lost by moves and by devices out of memory."""
        restarts = self.moves + self.out_of_memory_times
        return self.hours - self.out_of_memory_hours - restarts * restart_minutes / 60


@dataclass(frozen=True, slots=True)
class Row:
    """One run with its setting."""

    use: str
    load: float
    movable: float
    seed: int
    strategy: str
    arm: str
    result: Result


def result(load: Load, admitted: int, moves: int, moves_within_promise: int) -> Result:
    """Returns the costs of a load."""
    busy = load.jobs > 0
    full = busy & (load.memory > TOTAL_MIB + 0.5)
    demand, fleet = float(load.compute.sum()), load.memory.sum(axis=0, dtype=np.float64)
    capacity = TOTAL_MIB * len(load.memory)
    return Result(
        admitted=admitted,
        hours=int(load.jobs.sum()) / STEPS_PER_HOUR,
        out_of_memory_hours=int(full.sum()) / STEPS_PER_HOUR,
        out_of_memory_times=int((full[:, 1:] & ~full[:, :-1]).sum() + full[:, 0].sum()),
        out_of_memory_percent=_percent(full.sum(), busy.sum()),
        over_compute_percent=_percent((busy & (load.compute > 100)).sum(), busy.sum()),
        unserved_compute_percent=_percent(np.maximum(0, load.compute - 100).sum(), demand),
        fleet_peak_percent=_percent(fleet.max(), capacity),
        fleet_excess_percent=_percent(np.maximum(0, fleet - capacity).sum(), fleet.sum()),
        moves=moves,
        moves_within_promise=moves_within_promise,
    )


def _percent(part: float, whole: float) -> float:
    return 100 * float(part) / float(whole) if whole else 0.0


def as_dicts(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Returns the rows as `--json` prints them."""
    return [asdict(row) for row in rows]


def show(rows: Sequence[Row], restart_minutes: Sequence[float]) -> None:
    """Prints a table for each use, load and movable part: medians over the seeds, with those of promises as a base."""

    def setting(row: Row) -> tuple[str, float, float]:
        return row.use, row.load, row.movable

    for (use, load, movable), group in groupby(sorted(rows, key=setting), key=setting):
        found = list(group)
        seeds = len({row.seed for row in found})
        print(f"\n{use}, load {load:g}, {100 * movable:.0f} % movable, {seeds} seeds")
        costs = "".join(f" net hours at {minutes:g} min |" for minutes in restart_minutes)
        print(
            f"| strategy | arm | admitted | job-hours |{costs} out of memory % | unserved compute % "
            "| fleet peak %, excess % | moves (within) |"
        )
        print("|---" * (8 + len(restart_minutes)) + "|")
        for strategy, arm in dict.fromkeys((row.strategy, row.arm) for row in found):
            print(_line(found, strategy, arm, restart_minutes))


def _line(rows: Sequence[Row], strategy: str, arm: str, restart_minutes: Sequence[float]) -> str:
    def median(value: Callable[[Result], float], of: str = arm) -> float:
        found = [value(row.result) for row in rows if (row.strategy, row.arm) == (strategy, of)]
        return statistics.median(found) if found else float("nan")

    def compared(value: Callable[[Result], float]) -> str:
        return f"{median(value):.0f} ({100 * (median(value) / median(value, BASELINE) - 1):+.1f} %)"

    memory = [row.result.out_of_memory_percent for row in rows if (row.strategy, row.arm) == (strategy, arm)]
    cells = [
        strategy,
        arm,
        f"{median(lambda r: r.admitted):.0f}",
        compared(lambda r: r.hours),
        *(compared(partial(Result.net_hours, restart_minutes=minutes)) for minutes in restart_minutes),
        f"{statistics.median(memory):.2f} ({min(memory):.2f}-{max(memory):.2f})",
        f"{median(lambda r: r.unserved_compute_percent):.1f}",
        f"{median(lambda r: r.fleet_peak_percent):.0f}, {median(lambda r: r.fleet_excess_percent):.1f}",
        f"{median(lambda r: r.moves):.0f} ({median(lambda r: r.moves_within_promise):.0f})",
    ]
    return "| " + " | ".join(cells) + " |"
