"""When to write: at once what matters, a few quick writes for readings, and a heartbeat at rest.

A device whose load flaps would otherwise make every node write every second. A small supply of quick writes, filled
up slowly, lets a single change through at once and holds back one that goes on and on. What could be picked waits for
that supply a few seconds at most: a workload may be waiting for just this device to cool, whatever its neighbours do.
"""

from dataclasses import dataclass
from enum import StrEnum

from gpufleet_agent.publish.deadband import STALE_SECONDS, Significance


class WriteCause(StrEnum):
    """Why a status is written."""

    CHANGE = "Change"
    URGENT = "Urgent"
    HEARTBEAT = "Heartbeat"


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """How often to write. All in seconds but `burst`."""

    heartbeat: float = 30.0
    """At rest: at most two writes a minute, for the jitter only ever makes it longer."""
    jitter: float = 0.1
    """Largest share of the heartbeat that is added at random, so that the nodes of a cluster drift apart."""
    min_interval: float = 1.0
    """Between any two writes."""
    burst: int = 6
    """Writes for readings that may follow each other at `min_interval`."""
    refill: float = 10.0
    """Time for the supply to grow by one: a load on held devices that never settles is written this often."""
    patience: float = 3.0
    """A reading of a device that could be picked is written this long after the last write at the latest. With sampling
    and looking once a second each, it is in the cluster within 5 s."""
    stale: float = STALE_SECONDS
    """From which age on a sample is old: that it is fresh again is written at once."""
    max_backoff: float = 30.0
    """Longest wait between two attempts while the apiserver is away."""


@dataclass(frozen=True, slots=True)
class LastWrite:
    """What the next decision needs to know of the last write. Times are the event loop's."""

    at: float
    tokens: float
    """Quick writes left at `at`."""
    heartbeat_at: float


def first_write(policy: WritePolicy, now: float, jitter: float, built: float | None = None) -> LastWrite:
    """After the very first write. `jitter` is a random number from 0 to 1, `built` as for `next_write`."""
    return _written(policy, now, policy.burst, jitter, built)


def next_write(
    policy: WritePolicy, last: LastWrite, now: float, jitter: float, *, cause: WriteCause, built: float | None = None
) -> LastWrite:
    """After a later write, which was answered `now`.

    Args:
        policy: How often to write.
        last: The write before.
        now: When this one was answered.
        jitter: A random number from 0 to 1.
        cause: Why it was made. Only a change of readings takes from the supply: a short heartbeat, or holders that
            come and go, must not make readings wait.
        built: When its content was made. The heartbeat counts from there, so that an answer that took long, or came
            while this process stood still, doesn't put off the next one.
    """
    tokens = _tokens(policy, last, now)
    return _written(policy, now, max(0.0, tokens - 1) if cause is WriteCause.CHANGE else tokens, jitter, built)


def due_cause(policy: WritePolicy, last: LastWrite, significance: Significance, now: float) -> WriteCause | None:
    """Whether to write now, and why; None: not yet."""
    if now - last.at < policy.min_interval:
        return None
    if significance is Significance.URGENT:
        return WriteCause.URGENT
    if significance is Significance.PICKABLE and now - last.at >= policy.patience:
        return WriteCause.CHANGE
    if significance >= Significance.CHANGE and _tokens(policy, last, now) >= 1:
        return WriteCause.CHANGE
    return WriteCause.HEARTBEAT if now >= last.heartbeat_at else None


def backoff(policy: WritePolicy, failures: int, jitter: float) -> float:
    """How long to wait after so many failures in a row: doubling, and half of it at random."""
    return min(policy.max_backoff, policy.min_interval * 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * jitter)


def _tokens(policy: WritePolicy, last: LastWrite, now: float) -> float:
    return min(float(policy.burst), last.tokens + (now - last.at) / policy.refill)


def _written(policy: WritePolicy, now: float, tokens: float, jitter: float, built: float | None) -> LastWrite:
    since = now if built is None else built
    return LastWrite(at=now, tokens=tokens, heartbeat_at=since + policy.heartbeat * (1 + policy.jitter * jitter))
