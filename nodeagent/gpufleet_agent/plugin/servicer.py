"""The device plugin as the kubelet calls it: translates between gRPC and the hand-over."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from gpufleet_agent.plugin.allocation_observer import AllocationObserver
from gpufleet_agent.plugin.allocator import Allocator
from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.inject.env import allocate_response
from gpufleet_agent.plugin.inject.strategies import DeviceInjector
from gpufleet_agent.plugin.match import check_allocate
from gpufleet_agent.plugin.types import (
    AdvertisedDevice,
    AllocationRequest,
    AllocationResult,
    Rejection,
    RejectionReason,
    UnmanagedAllocation,
)
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.proto.deviceplugin import HEALTHY, UNHEALTHY, Context
from gpufleet_agent.resources import Served
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal

log = structlog.get_logger(__name__)

OPTIONS = pb.DevicePluginOptions(get_preferred_allocation_available=True)


class DevicePlugin:
    """Serves one resource.

    Args:
        served: The resource, and how it offers devices.
        devices: The devices to advertise, from memory.
        devices_changed: Notified when `devices` answers something else than before.
        asking: Who asks, and what it gets.
        admission: The allocation in flight.
        observer: Receives the outcome of each allocation, before the kubelet does.
        injection: How devices get into containers.
        counters: Where outcomes are counted.
    """

    def __init__(
        self,
        *,
        served: Served,
        devices: Callable[[], tuple[AdvertisedDevice, ...]],
        devices_changed: VersionSignal,
        asking: Allocator,
        admission: InFlightAllocation,
        observer: AllocationObserver,
        injection: DeviceInjector,
        counters: Instruments,
    ) -> None:
        self.served = served
        self._devices = devices
        self._devices_changed = devices_changed
        self._asking = asking
        self._admission = admission
        self._observer = observer
        self._injection = injection
        self._counters = counters
        self._closing = False
        self._looked_at: int | None = None
        """Version of `devices_changed` that `_has_devices` is of."""
        self._has_devices = False
        self.listeners = 0
        """Open ListAndWatch streams. Normally one: the kubelet's."""

    @property
    def has_devices(self) -> bool:
        """Whether there is anything to advertise, as of the last change: asked each second."""
        version = self._devices_changed.version
        if version != self._looked_at:
            self._looked_at, self._has_devices = version, bool(self._devices())
        return self._has_devices

    async def get_device_plugin_options(self, request: pb.Empty, context: Context) -> pb.DevicePluginOptions:
        """Ask to be asked: without GetPreferredAllocation the kubelet picks at random."""
        del request, context
        return OPTIONS

    async def list_and_watch(self, request: pb.Empty, context: Context) -> AsyncIterator[pb.ListAndWatchResponse]:
        """The full list at once and after every change, until the kubelet hangs up or the plugin closes."""
        del request, context
        self.listeners += 1
        self._tell_listeners()
        try:
            sent: pb.ListAndWatchResponse | None = None
            while not self._closing:
                seen, devices = self._devices_changed.version, self._devices()
                news = _device_list(devices, self.served)
                if news != sent:
                    log.info(
                        "devices told to the kubelet",
                        resource=self.served.resource,
                        devices=len(devices),
                        healthy=_healthy(devices),
                    )
                    yield news
                    sent = news
                await self._devices_changed.wait(seen)
        finally:
            self.listeners -= 1
            self._tell_listeners()

    async def get_preferred_allocation(
        self, request: pb.PreferredAllocationRequest, context: Context
    ) -> pb.PreferredAllocationResponse:
        """Find out who asks. A refusal is kept for Allocate: here it would fail the pod with less to say."""
        del context
        ticket = await self._admission.begin()
        try:
            answer = await self._answer(request)
        except asyncio.CancelledError:
            # The kubelet hung up: it is being restarted.
            self._admission.abandon(ticket)
            raise
        self._admission.answered(ticket, answer)
        chosen = () if isinstance(answer, Rejection) else answer.ids
        responses = [pb.ContainerPreferredAllocationResponse(deviceIDs=chosen) for _ in request.container_requests]
        return pb.PreferredAllocationResponse(container_responses=responses)

    async def allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        """Hand over what was just answered, and nothing else."""
        answered = self._admission.take()
        asked = frozenset(each for container in request.container_requests for each in container.devices_ids)
        result = check_allocate(answered or self._admission.again(asked), asked)
        if len(request.container_requests) != 1:
            result = _several(len(request.container_requests))
        ticket = self._admission.ticket
        result = await self._prepared(result)
        if isinstance(result, Rejection):
            self._counters.allocations.labels("Rejected", result.reason.value).inc()
            log.warning("allocation refused", reason=result.reason.value, message=result.message, asked=sorted(asked))
            self._admission.refused(ticket)
            self._observer.rejected(result)
            # The kubelet quotes this in the pod's status.
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{result.reason.value}: {result.message}")
        self._counters.allocations.labels(result.outcome, "").inc()
        if answered is not None and isinstance(result, UnmanagedAllocation):
            self._admission.handed(result)
        self._observer.allocated(result)
        return allocate_response(result, self._injection)

    async def pre_start_container(
        self, request: pb.PreStartContainerRequest, context: Context
    ) -> pb.PreStartContainerResponse:
        """Never called: the options don't ask for it."""
        del request, context
        return pb.PreStartContainerResponse()

    def close(self) -> None:
        """End all ListAndWatch streams."""
        self._closing = True
        self._devices_changed.notify()

    async def _prepared(self, result: AllocationResult) -> AllocationResult:
        if isinstance(result, Rejection):
            return result
        ticket = self._admission.ticket
        try:
            with self._admission.preparing():
                # Again: somebody may have tidied up since the devices were listed.
                await self._injection.prepare()
        except OSError as error:
            return Rejection(RejectionReason.DEVICE_FILES_NOT_READY, f"can't {self._injection.task}: {error}")
        if ticket != self._admission.ticket:
            # A kubelet that was restarted has given us up, and the next pod may have been answered the same devices.
            return Rejection(
                RejectionReason.NO_PREFERRED_ALLOCATION, "another allocation began before these devices were prepared"
            )
        lacking = self._injection.lacks(result.devices)
        if lacking:
            return Rejection(RejectionReason.DEVICE_FILES_NOT_READY, f"no device node for {', '.join(lacking)}")
        return result

    def _tell_listeners(self) -> None:
        self._counters.registered.labels(self.served.resource).set(min(1, self.listeners))

    async def _answer(self, request: pb.PreferredAllocationRequest) -> AllocationResult:
        if len(request.container_requests) != 1:
            return _several(len(request.container_requests))
        (container,) = request.container_requests
        return await self._asking.answer(
            AllocationRequest(
                available=frozenset(container.available_deviceIDs),
                size=container.allocation_size,
                must_include=frozenset(container.must_include_deviceIDs),
            )
        )


def _several(count: int) -> Rejection:
    # The kubelet sends one container at a time; with several, who asks could not be told.
    return Rejection(RejectionReason.MULTIPLE_CONTAINERS, f"{count} containers in one call")


def _device_list(devices: tuple[AdvertisedDevice, ...], served: Served) -> pb.ListAndWatchResponse:
    # No topology: with it the kubelet's Topology Manager would overrule the operator's choice.
    return pb.ListAndWatchResponse(
        devices=[
            pb.Device(ID=device_id, health=HEALTHY if device.healthy else UNHEALTHY)
            for device in devices
            for device_id in served.ids(device.uuid)
        ]
    )


def _healthy(devices: tuple[AdvertisedDevice, ...]) -> int:
    return sum(device.healthy for device in devices)
