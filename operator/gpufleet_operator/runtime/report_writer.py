"""Writes reports to people, and applies each response to the cache."""

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube import patches
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ConflictError, NotFoundError, PatchConflictError
from gpufleet_operator.kube.events import POD_KIND, ObjectEventRecorder, ObjectReference
from gpufleet_operator.kube.writer import KubeWriter
from gpufleet_operator.model.actions import Event
from gpufleet_operator.model.report_actions import ExplainPod, WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.runtime.cached_write import rejections_in


class ReportWriter:
    """Writes reports. Each method raises ConflictError when the object is not the one that was decided on.

    Args:
        writer: The apiserver.
        cache: Updated from each response.
        clock: Time of events.
        recorder: Writes events.
    """

    def __init__(self, writer: KubeWriter, cache: Cache, clock: ServerClock, recorder: ObjectEventRecorder) -> None:
        self._writer, self._cache, self._clock, self._recorder = writer, cache, clock, recorder

    async def telemetry(self, action: WriteTelemetryConditions) -> None:
        with rejections_in(self._cache.telemetry, action.uid):
            body = await self._writer.apply_telemetry_status(action.node, patches.telemetry_conditions(action))
        self._cache.telemetry.apply(body)

    async def node(self, action: WriteNodeCondition) -> None:
        with rejections_in(self._cache.nodes, action.uid):
            body = await self._writer.patch_node_status(action.node, patches.node_condition(action))
        self._cache.nodes.apply(body)

    async def pod(self, action: ExplainPod) -> None:
        """Records the event first: after a crash in between it is counted twice, but never missing."""
        about = ObjectReference(action.namespace, action.name, action.pod_uid, kind=POD_KIND, api_version="v1")
        try:
            event = Event(action.reason, action.note, warning=action.warning)
            await self._recorder.record(about, event, self._clock.now())
            if action.patch:
                self._cache.pods.apply(await self._writer.patch_pod(action.namespace, action.name, action.patch))
        except PatchConflictError as error:
            self._cache.pods.apply(error.current)
            raise
        except NotFoundError as error:  # the pod, or its namespace
            raise ConflictError(str(error), error.code) from error
