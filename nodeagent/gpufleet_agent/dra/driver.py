"""The parts of the DRA driver: sockets, slice, prepared claims."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpufleet_agent.dra.claim_files import ClaimFiles, ClaimMounts
from gpufleet_agent.dra.claim_registry import ClaimRegistry
from gpufleet_agent.dra.devices import ClaimableGpu, claimable, slice_device
from gpufleet_agent.dra.observer import ClaimObserver
from gpufleet_agent.dra.preparer import ClaimPreparer
from gpufleet_agent.dra.server import DriverServer, DriverSockets
from gpufleet_agent.dra.servicer import DraDriverServicer
from gpufleet_agent.dra.slice_publisher import Devices, SlicePublisher
from gpufleet_agent.kube.api import DraApi
from gpufleet_agent.kube.resource_claims import AllocatedClaim, parse_claim
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.plugin.inject.cdi import VOID
from gpufleet_agent.plugin.inject.device_files import DeviceFiles
from gpufleet_agent.plugin.inject.strategies import VISIBLE_DEVICES_MOUNTS, DeviceListStrategy, InjectorSettings
from gpufleet_agent.plugin.transport import check_kubelet_directory
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.snapshot import HealthState, SnapshotSource
from gpufleet_api.names import CDI_KIND, DRA_DRIVER
from gpufleet_common.device_ids import device_name

CHECK_SECONDS = 5.0
"""How often device nodes, and the files of claims that the kubelet lists, are checked."""
NOT_REGISTERED = "the DRA driver is not registered with the kubelet"
NOT_PUBLISHED = "the ResourceSlice of the node is not published"
NO_DEVICE_NODE = "no device node"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """Parts of the agent that the driver depends on."""

    node: str
    sockets: DriverSockets
    injection: InjectorSettings
    api: DraApi
    sampler: SnapshotSource
    advertised: Callable[[], tuple[AdvertisedDevice, ...]]
    telemetry: TelemetryWatch
    holdings: Holdings
    registry: ClaimRegistry
    observer: ClaimObserver
    devices_changed: VersionSignal
    living: Callable[[frozenset[str]], frozenset[str]] | None
    """See `ClaimPreparer`."""
    rng: random.Random


class DraDriver:
    """Serves the devices of the node to ResourceClaims."""

    def __init__(self, context: DriverContext) -> None:
        self._context = context
        injection = context.injection
        self._device_files = (
            DeviceFiles(context.advertised, injection.driver_root, None, context.devices_changed)
            if injection.writes_cdi or injection.pass_device_specs
            else None
        )
        self._preparer = ClaimPreparer(
            read=self._read_claim,
            telemetry=context.telemetry,
            gpus=self._gpus,
            device_files=self._device_files,
            files=ClaimFiles(injection.cdi_root, _mounts(injection)),
            registry=context.registry,
            holders=context.holdings.other_holders,
            living=context.living,
            visible=_visible(injection),
        )
        self._servicer = DraDriverServicer(
            pool=context.node,
            endpoint=str(context.sockets.driver),
            preparer=self._preparer,
            sampler=context.sampler,
            devices_changed=context.devices_changed,
            observer=context.observer,
            vendor_kind="" if injection.cdi_kind == CDI_KIND else injection.cdi_kind,
        )
        self._server = DriverServer(self._servicer, context.sockets)
        self._slices = SlicePublisher(
            context.api, context.node, self._slice_devices, context.devices_changed, context.rng
        )

    async def start(self) -> None:
        """Checks that the kubelet's directory exists, and reads the checkpoints of claims.

        Raises:
            NotADirectoryError: The kubelet's directory does not exist.
            OSError: The checkpoints cannot be read.
        """
        check_kubelet_directory(self._context.sockets.registry_dir)
        try:
            await self._preparer.start()
        except BaseException:  # also when cancelled: what did not start is not closed by the caller
            with suppress(TimeoutError):
                # The thread of a read that hangs ends when the read does.
                async with asyncio.timeout(0):
                    await self._preparer.close()
            raise

    def loops(
        self, ready: Callable[[], Awaitable[None]], beat: Callable[[str], Callable[[], None]]
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """Returns the coroutines that must run as long as the agent, by name.

        Args:
            ready: Ignored: a claim waits for the reservations by itself.
            beat: Returns the function that a loop of a name calls in each iteration.
        """
        del ready
        files = self._device_files
        kept = {} if files is None else {"device nodes": files.keep(beat("device nodes"), CHECK_SECONDS)}
        return {
            "DRA driver": self._server.run(beat("DRA driver")),
            "ResourceSlice": self._slices.run(beat("ResourceSlice")),
            "claims": self._restore_claims(beat("claims")),
            **kept,
        }

    def unregistered(self) -> list[str]:
        """Returns the driver's name while the kubelet has not registered it, or its slice is missing."""
        if not self._context.sampler.snapshot().devices:
            return []  # a node without devices has nothing to publish
        return [] if self._servicer.registered and self._slices.published else [DRA_DRIVER]

    def withheld(self) -> dict[str, str]:
        """Returns, by UUID, why a device without a fault cannot be given to a claim."""
        healthy = (
            d.info.uuid for d in self._context.sampler.snapshot().devices if d.health.state is HealthState.HEALTHY
        )
        if not self._servicer.registered:
            return dict.fromkeys(healthy, NOT_REGISTERED)
        if not self._slices.published:
            return dict.fromkeys(healthy, NOT_PUBLISHED)
        files = self._device_files
        if files is None:
            return {}
        return dict.fromkeys((uuid for uuid in healthy if uuid not in files.ready), files.problem or NO_DEVICE_NODE)

    async def close(self) -> None:
        """Stops serving and removes the sockets. The files of claims stay, because their containers may start again."""
        await self._server.close()
        await self._preparer.close()
        if self._device_files is not None:
            await self._device_files.close()

    async def _read_claim(self, namespace: str, name: str) -> AllocatedClaim:
        document = await self._context.api.get_claim(namespace, name)
        return parse_claim(document, DRA_DRIVER, self._context.node)

    def _gpus(self) -> dict[str, ClaimableGpu]:
        return {device_name(each.info.uuid): claimable(each) for each in self._context.sampler.snapshot().devices}

    def _slice_devices(self) -> Devices | None:
        snapshot = self._context.sampler.snapshot()
        if not snapshot.devices:
            return None  # not known yet: an empty slice would take the devices from claims that wait
        return [slice_device(device, snapshot.driver_version, pcie_root) for device in snapshot.devices]

    async def _restore_claims(self, beat: Callable[[], None]) -> None:
        """Prepares the claims again that the kubelet lists, but that have no files."""
        while True:
            beat()
            known = {(claim.namespace, claim.name) for claim in self._context.registry.prepared}
            listed = {
                each.claim
                for container in self._context.holdings.listing
                for each in container.claimed
                if each.name[0] == DRA_DRIVER and not container.terminating
            }
            for namespace, name in sorted(listed - known):
                await self._preparer.restore(namespace, name)
            await asyncio.sleep(CHECK_SECONDS)


def _mounts(injection: InjectorSettings) -> ClaimMounts:
    return ClaimMounts(injection.container_mounts, DeviceListStrategy.VOLUME_MOUNTS in injection.strategies)


def _visible(injection: InjectorSettings) -> str | None:
    """Returns the value of `NVIDIA_VISIBLE_DEVICES`; None: the devices. `void` adds none to those of CDI."""
    if DeviceListStrategy.VOLUME_MOUNTS in injection.strategies:
        return VISIBLE_DEVICES_MOUNTS
    return None if DeviceListStrategy.ENVVAR in injection.strategies else VOID


def pcie_root(bus_id: str, devices: Path = Path("/sys/bus/pci/devices")) -> str | None:
    """Returns the PCIe root of a device by its bus ID; None if this machine does not list it."""
    with suppress(OSError):
        parts = (devices / bus_id).resolve(strict=True).parts
        return next((part for part in parts if part.startswith("pci")), None)
    return None
