"""Selects the runs of a template that are listed, and those that count.

A run counts once it was observed for as long as a container must be observed before its unused memory is given to
others, or when its pod succeeded. A run that ended earlier may have failed: its maximum is only a lower bound, so it
counts if it exceeds all others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpufleet_api.demand.gpu_demand import DemandRun, DemandStatus, RunState
from gpufleet_api.names import MAX_DEMAND_RUNS
from gpufleet_common import timestamps
from gpufleet_operator.demand.observe import ObservedRun
from gpufleet_operator.demand.statistics import percentile, recommended_mib

WRITE_INTERVAL = timedelta(seconds=30)
"""Minimum time between two writes of an object because of a larger maximum."""
_BAND_MIB = 64
_BAND_PERCENT = 2
_P80 = 80
_MEDIAN = 50


@dataclass(frozen=True, slots=True)
class PodEnds:
    """Which pods have ended.

    Args:
        running: Uids of pods whose containers may run.
        succeeded: Uids of pods that ended with success.
    """

    running: frozenset[str]
    succeeded: frozenset[str]


def next_status(
    before: DemandStatus | None,
    observed: Mapping[str, ObservedRun],
    pods: PodEnds,
    *,
    now: datetime,
    minimum: timedelta,
) -> DemandStatus | None:
    """Returns the status to write; None: the stored one is still valid.

    Args:
        before: As stored.
        observed: The runs of this template, by pod uid.
        pods: Which pods have ended.
        now: Time of the write.
        minimum: How long a run must be observed to count.
    """
    stored = [] if before is None else before.runs
    largest = max((run.max_mib for run in stored if run.state is not RunState.OBSERVING), default=0)
    changed = [_advance(run, observed.get(run.pod_uid), pods, minimum, largest) for run in stored]
    runs = [run for run in changed if run is not None]
    known = {run.pod_uid for run in stored}
    new = [(seen.since, uid) for uid, seen in observed.items() if uid in pods.running and uid not in known]
    room = MAX_DEMAND_RUNS - sum(run.state is not RunState.ENDED for run in runs)
    started = [_started(uid, observed[uid], minimum) for _, uid in (sorted(new)[:room] if room else ())]
    runs = _bounded(runs, started) if started else runs
    if _states(runs) == _states(stored) and not _is_worth_a_write(before, runs, now):
        return None
    return _status(before, runs, now)


def _advance(
    run: DemandRun, seen: ObservedRun | None, pods: PodEnds, minimum: timedelta, largest: int
) -> DemandRun | None:
    """Returns the run as it is now; None: it has ended and does not count."""
    if run.state is RunState.ENDED:
        return run
    most = run.max_mib if seen is None else max(run.max_mib, seen.max_mib)
    counts = run.state is RunState.RUNNING or (seen is not None and _is_observed(seen, run, minimum))
    if run.pod_uid in pods.running:
        state = RunState.RUNNING if counts and most else RunState.OBSERVING
    elif most and (counts or run.pod_uid in pods.succeeded or most > largest):
        state = RunState.ENDED
    else:
        return None
    if (most, state) == (run.max_mib, run.state):
        return run
    changed: DemandRun = run.model_copy(update={"max_mib": most, "state": state})
    return changed


def _is_observed(seen: ObservedRun, run: DemandRun, minimum: timedelta) -> bool:
    return seen.until - min(seen.since, timestamps.parse(run.since)) >= minimum


def _started(uid: str, seen: ObservedRun, minimum: timedelta) -> DemandRun:
    counts = seen.max_mib > 0 and seen.until - seen.since >= minimum
    return DemandRun(
        pod_uid=uid,
        since=timestamps.micros(seen.since),
        state=RunState.RUNNING if counts else RunState.OBSERVING,
        promised_mib=seen.promised_mib,
        max_mib=seen.max_mib,
        device_mib=seen.device_mib or None,
    )


def _bounded(runs: Iterable[DemandRun], started: Iterable[DemandRun]) -> list[DemandRun]:
    """Returns the latest runs. Active runs are never removed: they would look new in the next pass.

    Therefore runs that start while as many others run as can be listed are left out.
    """
    active = [*(run for run in runs if run.state is not RunState.ENDED), *started]
    ended = sorted((run for run in runs if run.state is RunState.ENDED), key=_age)
    room = MAX_DEMAND_RUNS - len(active)
    return sorted([*active, *(ended[-room:] if room else [])], key=_age)


def _age(run: DemandRun) -> tuple[datetime, str]:
    return timestamps.parse(run.since), run.pod_uid


def _states(runs: Iterable[DemandRun]) -> dict[str, RunState]:
    return {run.pod_uid: run.state for run in runs}


def _is_worth_a_write(before: DemandStatus | None, runs: Iterable[DemandRun], now: datetime) -> bool:
    """Returns True when a maximum of an active run has grown by more than the dead band, some time after a write."""
    if before is None:
        return True
    stored = {run.pod_uid: run.max_mib for run in before.runs}
    grown = any(
        run.max_mib - stored[run.pod_uid] > max(_BAND_MIB, stored[run.pod_uid] * _BAND_PERCENT // 100) for run in runs
    )
    return grown and now - timestamps.parse(before.observed_at) >= WRITE_INTERVAL


def _status(before: DemandStatus | None, runs: list[DemandRun], now: datetime) -> DemandStatus:
    counting = [run for run in runs if run.state is not RunState.OBSERVING]
    counted_before = (
        set() if before is None else {run.pod_uid for run in before.runs if run.state is not RunState.OBSERVING}
    )
    total = (0 if before is None else before.total_runs) + sum(run.pod_uid not in counted_before for run in counting)
    maxima = [run.max_mib for run in counting]
    devices = [run.device_mib for run in counting if run.device_mib is not None]
    return DemandStatus(
        observed_at=timestamps.seconds(now),
        total_runs=total,
        counted_runs=len(counting),
        promised_mib=runs[-1].promised_mib if runs else None if before is None else before.promised_mib,
        median_mib=percentile(maxima, _MEDIAN) if maxima else None,
        p80_mib=percentile(maxima, _P80) if maxima else None,
        max_mib=max(maxima, default=None),
        recommended_mib=recommended_mib(max(maxima), max(devices, default=None)) if maxima else None,
        runs=runs,
    )
