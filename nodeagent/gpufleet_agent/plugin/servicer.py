"""Translates between the kubelet's device plugin API and device allocation."""

from collections.abc import AsyncGenerator, Callable

import structlog
from grpclib import GRPCError, Status

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
from gpufleet_agent.proto.deviceplugin import HEALTHY, UNHEALTHY
from gpufleet_agent.resources import Served
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal

log = structlog.get_logger(__name__)

OPTIONS = pb.DevicePluginOptions(get_preferred_allocation_available=True)
"""Without GetPreferredAllocation the kubelet picks devices at random."""


class DevicePlugin:
    """Serves one resource.

    Args:
        served: The resource, and how it offers devices.
        devices: Returns the devices to advertise, without I/O.
        devices_changed: Notified when the result of `devices` changes.
        allocator: Computes preferred allocations.
        in_flight: The allocation in flight.
        observer: Receives the results.
        injector: Puts devices into containers.
        counters: Counts outcomes.
    """

    def __init__(
        self,
        *,
        served: Served,
        devices: Callable[[], tuple[AdvertisedDevice, ...]],
        devices_changed: VersionSignal,
        allocator: Allocator,
        in_flight: InFlightAllocation,
        observer: AllocationObserver,
        injector: DeviceInjector,
        counters: Instruments,
    ) -> None:
        self.served = served
        self._devices = devices
        self._devices_changed = devices_changed
        self._allocator = allocator
        self._in_flight = in_flight
        self._observer = observer
        self._injector = injector
        self._counters = counters
        self._closing = False
        self._checked_version: int | None = None
        """Version of `devices_changed` that `_has_devices` is of."""
        self._has_devices = False
        self.listeners = 0
        """Open ListAndWatch streams. Normally one: the kubelet's."""

    @property
    def has_devices(self) -> bool:
        """Whether there is a device to advertise. Computed once per change, because it is read every second."""
        version = self._devices_changed.version
        if version != self._checked_version:
            self._checked_version, self._has_devices = version, bool(self._devices())
        return self._has_devices

    async def get_device_plugin_options(self, request: pb.Empty) -> pb.DevicePluginOptions:
        del request
        return OPTIONS

    async def list_and_watch(self, request: pb.Empty) -> AsyncGenerator[pb.ListAndWatchResponse, None]:
        """Yields the full list now and after every change, until the kubelet hangs up or the plugin closes."""
        del request
        self.listeners += 1
        self._count_listeners()
        try:
            sent: pb.ListAndWatchResponse | None = None
            while not self._closing:
                seen, devices = self._devices_changed.version, self._devices()
                response = _device_list(devices, self.served)
                if response != sent:
                    log.info(
                        "device list sent to kubelet",
                        resource=self.served.resource,
                        devices=len(devices),
                        healthy=sum(device.healthy for device in devices),
                    )
                    yield response
                    sent = response
                await self._devices_changed.wait(seen)
        finally:
            self.listeners -= 1
            self._count_listeners()

    async def get_preferred_allocation(self, request: pb.PreferredAllocationRequest) -> pb.PreferredAllocationResponse:
        """Returns the devices for the pod. A rejection is kept for Allocate, where an error can state the reason."""
        ticket = await self._in_flight.begin()
        try:
            result = await self._preferred_allocation(request)
        except BaseException:
            # A cancellation: the kubelet hung up because it is restarting.
            self._in_flight.end(ticket)
            raise
        self._in_flight.set_result(ticket, result)
        preferred = () if isinstance(result, Rejection) else result.ids
        responses = [pb.ContainerPreferredAllocationResponse(deviceIDs=preferred) for _ in request.container_requests]
        return pb.PreferredAllocationResponse(container_responses=responses)

    async def allocate(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        """Allocates exactly the preferred devices."""
        preferred = self._in_flight.take_result()
        requested = frozenset(each for container in request.container_requests for each in container.devices_ids)
        result = check_allocate(preferred or self._in_flight.reuse(requested), requested)
        if len(request.container_requests) != 1:
            result = _multiple_containers(len(request.container_requests))
        ticket = self._in_flight.ticket
        result = await self._prepare(result)
        if isinstance(result, Rejection):
            self._counters.allocations.labels("Rejected", result.reason.value).inc()
            log.warning(
                "allocation rejected", reason=result.reason.value, message=result.message, device_ids=sorted(requested)
            )
            self._in_flight.end(ticket)
            self._observer.rejected(result)
            # The kubelet copies this into the pod's status.
            raise GRPCError(Status.FAILED_PRECONDITION, f"{result.reason.value}: {result.message}")
        self._counters.allocations.labels(result.outcome, "").inc()
        if preferred is not None and isinstance(result, UnmanagedAllocation):
            self._in_flight.keep_for_reuse(result)
        self._observer.allocated(result)
        return allocate_response(result, self._injector)

    async def pre_start_container(self, request: pb.PreStartContainerRequest) -> pb.PreStartContainerResponse:
        """Is never called, because the options do not request it."""
        del request
        return pb.PreStartContainerResponse()

    def close(self) -> None:
        """Ends all ListAndWatch streams."""
        self._closing = True
        self._devices_changed.notify()

    async def _prepare(self, result: AllocationResult) -> AllocationResult:
        if isinstance(result, Rejection):
            return result
        ticket = self._in_flight.ticket
        try:
            with self._in_flight.preparing():
                # Again, because the files may have been removed since the devices were listed.
                await self._injector.prepare()
        except OSError as error:
            return Rejection(RejectionReason.DEVICE_FILES_NOT_READY, f"cannot {self._injector.task}: {error}")
        if ticket != self._in_flight.ticket:
            # The kubelet was restarted and dropped this allocation; the next pod may have got the same devices.
            message = "another allocation began before these devices were prepared"
            return Rejection(RejectionReason.NO_PREFERRED_ALLOCATION, message)
        missing = self._injector.missing(result.devices)
        if missing:
            return Rejection(RejectionReason.DEVICE_FILES_NOT_READY, f"no device node for {', '.join(missing)}")
        return result

    def _count_listeners(self) -> None:
        self._counters.registered.labels(self.served.resource).set(min(1, self.listeners))

    async def _preferred_allocation(self, request: pb.PreferredAllocationRequest) -> AllocationResult:
        if len(request.container_requests) != 1:
            return _multiple_containers(len(request.container_requests))
        (container,) = request.container_requests
        return await self._allocator.preferred_allocation(
            AllocationRequest(
                available=frozenset(container.available_deviceIDs),
                size=container.allocation_size,
                must_include=frozenset(container.must_include_deviceIDs),
            )
        )


def _multiple_containers(count: int) -> Rejection:
    # The kubelet sends one container at a time. With several, the pod could not be found.
    return Rejection(RejectionReason.MULTIPLE_CONTAINERS, f"{count} containers in one call")


def _device_list(devices: tuple[AdvertisedDevice, ...], served: Served) -> pb.ListAndWatchResponse:
    # Without topology: with it, the kubelet's Topology Manager would override the operator's choice.
    return pb.ListAndWatchResponse(
        devices=[
            pb.Device(ID=device_id, health=HEALTHY if device.healthy else UNHEALTHY)
            for device in devices
            for device_id in served.ids(device.uuid)
        ]
    )
