"""Computes the waits between attempts."""


def backoff(failures: int, jitter: float, *, first: float, longest: float) -> float:
    """Returns the wait in seconds after a number of failures in a row: exponential, half of it random.

    Args:
        failures: Number of failures, from 1.
        jitter: A random number from 0 to 1.
        first: Maximum wait after the first one, in seconds.
        longest: Maximum wait, in seconds.
    """
    return min(longest, first * 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * jitter)
