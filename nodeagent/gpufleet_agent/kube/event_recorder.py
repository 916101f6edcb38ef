"""Records Kubernetes events in the background."""

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
"""Further events, while the apiserver is down, are only logged."""

MAX_ATTEMPTS = 12
"""A few minutes in all. An event that could not be written for so long is out of date."""

_FINAL = (ObjectNotFoundError, RejectedError)


class EventRecorder:
    """Creates events one after the other, in the order in which they were recorded.

    Args:
        api: Creates the events.
    """

    def __init__(self, api: EventApi) -> None:
        self._api = api
        self._queue: asyncio.Queue[PodEvent] = asyncio.Queue(MAX_QUEUED)

    def record(self, event: PodEvent) -> None:
        """Queues an event and returns immediately."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event dropped, queue is full", pod=event.pod, reason=event.reason)

    async def run(self) -> None:
        """Creates queued events, without end."""
        while True:
            event = await self._queue.get()
            try:
                async for attempt in AsyncRetrying(
                    # Not retried: the pod's namespace is gone, or is being deleted (403). Other pods' events wait.
                    retry=retry_if_exception_type(KubeError) & retry_if_not_exception_type(_FINAL),
                    wait=wait_random_exponential(multiplier=0.2, max=30.0),
                    stop=stop_after_attempt(MAX_ATTEMPTS),
                ):
                    with attempt:
                        await self._api.create_event(event)
            except (RetryError, *_FINAL) as error:
                log.warning("event not written", pod=event.pod, reason=event.reason, error=str(error))
