"""One way to wait for an apiserver that is away."""

import asyncio
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential, wait_random

from gpufleet_operator.kube.errors import ApiError

Sleep = Callable[[float], Awaitable[None]]


def patiently(*kinds: type[ApiError], sleep: Sleep = asyncio.sleep) -> AsyncRetrying:
    """Try again after errors of these kinds, for ever: half a second apart, then longer, up to half a minute.

    With jitter, so that everybody doesn't come back in the same moment.
    """
    wait = wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5)
    return AsyncRetrying(retry=retry_if_exception_type(kinds), wait=wait, sleep=sleep)
