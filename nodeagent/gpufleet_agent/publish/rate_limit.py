"""Decides when to write: urgent changes immediately, readings by a token bucket, and a heartbeat at rest.

A heartbeat may be a renewal of the agent's Lease instead of a report; see `steady`.

Without the token bucket, a device with varying load would make its node write every second. The bucket lets a single
change through immediately and limits continuous changes. For devices that could be placed on, a change waits for a
token for a few seconds at most: a workload may wait for this device to cool.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from gpufleet_agent.publish.deadband import STALE_SECONDS, Significance, stale_after
from gpufleet_api.names import REPORT_SECONDS


class WriteCause(StrEnum):
    """Why a status is written. Label of `gpufleet_agent_status_writes_total`."""

    CHANGE = "Change"
    URGENT = "Urgent"
    HEARTBEAT = "Heartbeat"


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """How often to write. All in seconds except `jitter` and `burst`."""

    heartbeat: float = 30.0
    """Interval at rest: at most two writes a minute, as the jitter only increases it."""
    report: float = REPORT_SECONDS
    """Time after which a heartbeat is a report whatever the Lease could confirm. Up to the heartbeat: each is."""
    jitter: float = 0.1
    """Maximum fraction of both that is added at random, so that the nodes of a cluster drift apart."""
    min_interval: float = 1.0
    """Between any two writes."""
    burst: int = 6
    """Capacity of the token bucket: writes for readings that may follow each other at `min_interval`."""
    refill: float = 10.0
    """Time to add one token: continuous changes of held devices are written this often."""
    patience: float = 3.0
    """Maximum time since the last write for changes of devices that could be placed on. With samples and ticks once a
    second, such a change is in the cluster within 5 s."""
    unreported: float = 2.0
    """Time after which the generation of new reservations is reported by itself, at the next tick. Mostly a container
    starts before, and its report has the generation as well."""
    stale: float = STALE_SECONDS
    """Age above which a sample is stale: that it is fresh again is written immediately."""
    max_backoff: float = 30.0
    """Maximum wait between two attempts while the apiserver is away."""


def make_policy(heartbeat: float, report: float, sample: float) -> WritePolicy:
    """Builds the policy of an agent that takes a sample every `sample` seconds."""
    return WritePolicy(heartbeat=heartbeat, report=report, stale=stale_after(sample))


@dataclass(frozen=True, slots=True)
class LastWrite:
    """The last write, with the token bucket after it. Times are the event loop's."""

    at: float
    tokens: float
    """In the bucket, at `at`."""
    heartbeat_at: float
    report_at: float
    """From then on a heartbeat is a report."""


def first_write(policy: WritePolicy, now: float, jitter: float, built: float | None = None) -> LastWrite:
    """Returns the state after the first write. `jitter` is a random number from 0 to 1, `built` as for `next_write`."""
    return _written(policy, now, policy.burst, jitter, built)


def next_write(
    policy: WritePolicy, last: LastWrite, now: float, jitter: float, *, cause: WriteCause, built: float | None = None
) -> LastWrite:
    """Returns the state after a later write.

    Args:
        policy: How often to write.
        last: The previous write.
        now: When this write was answered.
        jitter: A random number from 0 to 1.
        cause: Only a change of readings takes a token: a short heartbeat, or changing holders, must not delay readings.
        built: When its content was built. The heartbeat counts from there, so that a slow response, or a frozen
            process, does not delay the next one.
    """
    tokens = _tokens(policy, last, now)
    return _written(policy, now, max(0.0, tokens - 1) if cause is WriteCause.CHANGE else tokens, jitter, built)


def due_cause(
    policy: WritePolicy,
    last: LastWrite,
    significance: Significance,
    now: float,
    *,
    generation_since: float | None = None,
) -> WriteCause | None:
    """Returns why to write now; None if no write is due.

    Args:
        policy: How often to write.
        last: The previous write.
        significance: Of the differences to it.
        now: Time.
        generation_since: When the generation of reservations was read that is not reported yet; None: it is.
    """
    if now - last.at < policy.min_interval:
        return None
    if significance is Significance.URGENT:
        return WriteCause.URGENT
    if generation_since is not None and now - generation_since >= policy.unreported:
        return WriteCause.URGENT
    if significance is Significance.PICKABLE and now - last.at >= policy.patience:
        return WriteCause.CHANGE
    if significance >= Significance.CHANGE and _tokens(policy, last, now) >= 1:
        return WriteCause.CHANGE
    return WriteCause.HEARTBEAT if now >= last.heartbeat_at else None


def may_renew(policy: WritePolicy, last: LastWrite, now: float) -> bool:
    """Returns whether a heartbeat may be a renewal by the time of the last report."""
    return policy.report > policy.heartbeat and now < last.report_at


def after_renewal(policy: WritePolicy, last: LastWrite, now: float, jitter: float) -> LastWrite:
    """Returns the state after a renewal, which moves only the next heartbeat.

    Args:
        policy: How often to write.
        last: The last report.
        now: When that was observed which the renewal confirms.
        jitter: A random number from 0 to 1.
    """
    return replace(last, heartbeat_at=now + policy.heartbeat * (1 + policy.jitter * jitter))


def after_failed_renewal(last: LastWrite, now: float) -> LastWrite:
    """Returns the state after a renewal that failed at `now`: until the next report, heartbeats are reports."""
    return replace(last, report_at=min(last.report_at, now))


def _tokens(policy: WritePolicy, last: LastWrite, now: float) -> float:
    return min(float(policy.burst), last.tokens + (now - last.at) / policy.refill)


def _written(policy: WritePolicy, now: float, tokens: float, jitter: float, built: float | None) -> LastWrite:
    since = now if built is None else built
    stretch = 1 + policy.jitter * jitter
    return LastWrite(
        at=now,
        tokens=tokens,
        heartbeat_at=since + policy.heartbeat * stretch,
        report_at=since + policy.report * stretch,
    )
