"""Tells people what happened, in events on pods: beside the work, never in its way."""

import asyncio

import structlog
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from gpufleet_agent.kube.api import EventApi, KubeError, ObjectNotFoundError, RejectedError
from gpufleet_agent.kube.model import PodEvent

log = structlog.get_logger(__name__)

MAX_QUEUED = 64
"""More than that while the apiserver is away, and the rest is in the log alone."""

MAX_ATTEMPTS = 12
"""Some minutes in all. What can't be written for so long is news no more."""

_FINAL = (ObjectNotFoundError, RejectedError)


class EventRecorder:
    """Writes events one after the other, in the order in which they happened.

    Args:
        api: Where they go.
    """

    def __init__(self, api: EventApi) -> None:
        self._api = api
        self._waiting: asyncio.Queue[PodEvent] = asyncio.Queue(MAX_QUEUED)

    def tell(self, event: PodEvent) -> None:
        """Have an event written soon. Returns at once."""
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event left out: too many are waiting", event_of=event.pod, reason=event.reason)

    async def run(self) -> None:
        """Write what is told, for ever."""
        while True:
            event = await self._waiting.get()
            try:
                async for attempt in AsyncRetrying(
                    # These stay: the pod's namespace is gone, and with it whoever would read this, or is on its way out
                    # (403). The events of others wait behind this one.
                    retry=retry_if_exception_type(KubeError) & retry_if_not_exception_type(_FINAL),
                    wait=wait_random_exponential(multiplier=0.2, max=30.0),
                    stop=stop_after_attempt(MAX_ATTEMPTS),
                ):
                    with attempt:
                        await self._api.tell(event)
            except (RetryError, *_FINAL) as error:
                log.warning("event not written", event_of=event.pod, reason=event.reason, error=str(error))
