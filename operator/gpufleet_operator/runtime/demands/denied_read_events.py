"""Reports a denied read that does not end the process, by an event of its pod."""

from collections.abc import Callable

import structlog

from gpufleet_api.names import READS_DENIED
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError
from gpufleet_operator.kube.events import POD_KIND, ObjectEventRecorder, ObjectReference
from gpufleet_operator.model.actions import Event

log = structlog.get_logger(__name__)


class DeniedReadEvents:
    """Records the events.

    Args:
        api: The apiserver.
        recorder: Writes events.
        clock: Clock of the apiserver.
        namespace: Namespace of this process's pod; empty: it runs outside of the cluster, where no event is recorded.
        pod: Name of the pod.
        may_write: Whether this process leads.
    """

    def __init__(
        self,
        api: Api,
        recorder: ObjectEventRecorder,
        clock: ServerClock,
        namespace: str,
        pod: str,
        *,
        may_write: Callable[[], bool],
    ) -> None:
        self._api, self._recorder, self._clock = api, recorder, clock
        self._namespace, self._pod, self._may_write = namespace, pod, may_write

    async def record(self, path: str, error: ApiError) -> None:
        """Records that a list or watch of `path` is denied; an event that cannot be written is only logged."""
        if not self._namespace or not self._may_write():
            return
        event = Event(READS_DENIED, f"the apiserver denies reading {paths.resource(path)}: {error}", warning=True)
        try:
            body = await self._api.get(paths.pod(self._namespace, self._pod))
            about = ObjectReference(self._namespace, self._pod, body["metadata"]["uid"], POD_KIND, "v1")
            await self._recorder.record(about, event, self._clock.now())
        except ApiError as failure:
            log.warning("cannot record event", reason=event.reason, error=str(failure))
