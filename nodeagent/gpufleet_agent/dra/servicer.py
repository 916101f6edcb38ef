"""Translates between the kubelet's DRA API and claims."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

import structlog

from gpufleet_agent.dra.claim_files import cdi_id
from gpufleet_agent.dra.health import health_response
from gpufleet_agent.dra.observer import ClaimObserver
from gpufleet_agent.dra.prepared_claim import PreparedClaim
from gpufleet_agent.dra.preparer import ClaimError, ClaimPreparer, ClaimRef
from gpufleet_agent.plugin.inject.cdi import qualified_name
from gpufleet_agent.proto import dra_health_pb2 as health_pb
from gpufleet_agent.proto import dra_pb2 as pb
from gpufleet_agent.proto import plugin_registration_pb2 as registration_pb
from gpufleet_agent.proto.dra import PLUGIN_TYPE, SUPPORTED_SERVICES
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.snapshot import SnapshotSource
from gpufleet_api.names import DRA_DRIVER

log = structlog.get_logger(__name__)

HEALTH_SECONDS = 20.0
"""Interval at which the health is sent where it does not change."""


class DraDriverServicer:
    """Serves one node's devices.

    Args:
        pool: Name of the pool: the node's.
        endpoint: Path of the driver's socket, as the kubelet sees it.
        preparer: Prepares claims.
        sampler: The devices.
        devices_changed: Notified when a device's health changes.
        observer: Receives the results.
        vendor_kind: Kind of a CDI file of the vendor whose devices are named by UUID; empty: there is none.
    """

    def __init__(
        self,
        *,
        pool: str,
        endpoint: str,
        preparer: ClaimPreparer,
        sampler: SnapshotSource,
        devices_changed: VersionSignal,
        observer: ClaimObserver,
        vendor_kind: str = "",
    ) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._preparer = preparer
        self._sampler = sampler
        self._devices_changed = devices_changed
        self._observer = observer
        self._vendor_kind = vendor_kind
        self._closing = False
        self.registered = False
        """Whether the kubelet has accepted the last registration."""

    async def get_info(self, request: registration_pb.InfoRequest) -> registration_pb.PluginInfo:
        del request
        return registration_pb.PluginInfo(
            type=PLUGIN_TYPE, name=DRA_DRIVER, endpoint=self._endpoint, supported_versions=SUPPORTED_SERVICES
        )

    async def notify_registration_status(
        self, request: registration_pb.RegistrationStatus
    ) -> registration_pb.RegistrationStatusResponse:
        self.registered = request.plugin_registered
        self._observer.registered(self.registered)
        if self.registered:
            log.info("registered with kubelet", driver=DRA_DRIVER)
        else:
            log.error("registration rejected by kubelet", driver=DRA_DRIVER, error=request.error)
        return registration_pb.RegistrationStatusResponse()

    async def node_prepare_resources(self, request: pb.NodePrepareResourcesRequest) -> pb.NodePrepareResourcesResponse:
        deadline = self._preparer.deadline()
        refs = [ClaimRef(claim.namespace, claim.name, claim.uid) for claim in request.claims]
        results = await asyncio.gather(*(self._prepare(ref, deadline) for ref in refs))
        return pb.NodePrepareResourcesResponse(
            claims={ref.uid: result for ref, result in zip(refs, results, strict=True)}
        )

    async def node_unprepare_resources(
        self, request: pb.NodeUnprepareResourcesRequest
    ) -> pb.NodeUnprepareResourcesResponse:
        response = pb.NodeUnprepareResourcesResponse()
        for claim in request.claims:
            ref = ClaimRef(claim.namespace, claim.name, claim.uid)
            try:
                await self._preparer.unprepare(ref)
                response.claims[ref.uid].error = ""
            except ClaimError as error:
                log.warning("claim not unprepared", claim=str(ref), error=str(error))
                response.claims[ref.uid].error = str(error)
        self._observer.unprepared()
        return response

    async def node_watch_resources(
        self, request: health_pb.NodeWatchResourcesRequest
    ) -> AsyncGenerator[health_pb.NodeWatchResourcesResponse, None]:
        """Yields the health of all devices, until the kubelet hangs up or the driver closes."""
        del request
        while not self._closing:
            seen = self._devices_changed.version
            yield health_response(self._sampler.snapshot(), self._pool, time.time())
            with suppress(TimeoutError):
                async with asyncio.timeout(HEALTH_SECONDS):
                    await self._devices_changed.wait(seen)

    def close(self) -> None:
        """Ends all streams."""
        self._closing = True
        self._devices_changed.notify()

    async def _prepare(self, ref: ClaimRef, deadline: float) -> pb.NodePrepareResourceResponse:
        try:
            claim = await self._preparer.prepare(ref, deadline)
        except ClaimError as error:
            log.warning("claim not prepared", claim=str(ref), uid=ref.uid, error=str(error))
            self._observer.rejected()
            return pb.NodePrepareResourceResponse(error=str(error))
        self._observer.prepared(claim)
        return pb.NodePrepareResourceResponse(
            devices=[
                pb.Device(
                    request_names=[device.request],
                    pool_name=self._pool,
                    device_name=device.name,
                    cdi_device_ids=self._cdi_ids(claim, position),
                    share_id=device.share_id,
                )
                for position, device in enumerate(claim.devices)
            ]
        )

    def _cdi_ids(self, claim: PreparedClaim, position: int) -> list[str]:
        vendor = [qualified_name(self._vendor_kind, claim.devices[position].uuid)] if self._vendor_kind else []
        return [cdi_id(claim, position), *vendor]
