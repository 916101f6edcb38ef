"""Loops that come round often do so together, at whole multiples of their interval by the monotonic clock.

A processor that wakes for one of them finds its caches full of others' data: what runs first takes two or three times
as long as what follows at once. Five loops a second at five moments are therefore dearer than at one.
"""


def seconds_to_next_tick(now: float, interval: float) -> float:
    """Seconds from `now` to the next multiple of `interval` (seconds): more than 0, and at most `interval`.

    Args:
        now: By the monotonic clock, which is the event loop's, too; in seconds.
        interval: Between two ticks.
    """
    return interval - now % interval
