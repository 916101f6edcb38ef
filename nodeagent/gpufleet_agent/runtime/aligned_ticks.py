"""Aligns loops that run often to common moments: whole multiples of their interval by the monotonic clock.

A processor that wakes up for one loop finds its caches filled with other data, so the first one takes two or three
times as long as those that follow immediately. Five loops per second at five moments therefore cost more than at one.
"""


def seconds_to_next_tick(now: float, interval: float) -> float:
    """Returns the seconds from `now` to the next multiple of `interval` (seconds): more than 0, at most `interval`.

    Args:
        now: Time by the monotonic clock, which is also the event loop's, in seconds.
        interval: Time between two ticks.
    """
    return interval - now % interval
