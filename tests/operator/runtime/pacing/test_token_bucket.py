"""A bucket gives its burst at once, and then its rate."""

from gpufleet_operator.runtime.pacing.token_bucket import TokenBucket


def test_burst_then_rate() -> None:
    now = [100.0]
    bucket = TokenBucket(10, 5, lambda: now[0])
    assert bucket.available() == 5
    bucket.take(5)
    assert bucket.available() == 0
    now[0] += 0.35
    assert bucket.available() == 3
    bucket.take(3)
    now[0] += 0.06
    assert bucket.available() == 1, "the rest of the last interval counts"


def test_idle_time_fills_no_more_than_the_burst() -> None:
    now = [0.0]
    bucket = TokenBucket(10, 5, lambda: now[0])
    now[0] += 3600
    assert bucket.available() == 5
