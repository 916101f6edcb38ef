"""Puts devices into containers by the configured device list strategies."""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from gpufleet_agent.plugin.inject.cdi import CdiFile, annotation, qualified_name
from gpufleet_agent.plugin.inject.device_files import PATIENCE_SECONDS, DeviceFiles
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_api.names import CDI_KIND, ENV_VISIBLE_DEVICES

CHECK_SECONDS = 5.0
"""Time between two checks for missing device nodes."""


class DeviceListStrategy(StrEnum):
    """How a container gets its devices. Names as in NVIDIA's device plugin."""

    ENVVAR = "envvar"
    """By NVIDIA's runtime, through `NVIDIA_VISIBLE_DEVICES`."""
    VOLUME_MOUNTS = "volume-mounts"
    """By NVIDIA's runtime, through mounts. Containers of users cannot have such mounts without a hostPath volume."""
    CDI_CRI = "cdi-cri"
    """By the container runtime, through the CRI's field for CDI devices."""
    CDI_ANNOTATIONS = "cdi-annotations"
    """By the container runtime, through annotations: for runtimes without that field."""


CDI_STRATEGIES = frozenset({DeviceListStrategy.CDI_CRI, DeviceListStrategy.CDI_ANNOTATIONS})

VISIBLE_DEVICES_MOUNTS = "/var/run/nvidia-container-devices"
"""Directory in a container whose files NVIDIA's runtime takes as the list of devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectorSettings:
    strategies: frozenset[DeviceListStrategy] = frozenset({DeviceListStrategy.ENVVAR})
    pass_device_specs: bool = False
    """Whether the device nodes are also passed to the kubelet."""
    driver_root: Path = Path("/")
    """Directory on the host that contains the driver's `dev`. The agent must see it at the same path."""
    cdi_root: Path = Path("/var/run/cdi")
    cdi_kind: str = CDI_KIND
    """Kind of the devices' CDI names. With one other than the default, the agent does not write the CDI file."""
    container_mounts: tuple[tuple[Path, Path], ...] = ()
    """Directories with the driver's libraries to mount read-only: path on the host, path in the container."""

    @property
    def writes_cdi(self) -> bool:
        """Whether the agent writes the CDI file."""
        return bool(self.strategies & CDI_STRATEGIES) and self.cdi_kind == CDI_KIND


class DeviceInjector:
    """Puts devices into containers.

    Args:
        settings: Configuration.
        devices: Returns the devices of the node, without I/O.
        changes: Notified when the result of `usable` changes.
        check_seconds: How often to check device nodes where they matter.
        patience_seconds: How long the file system may take to respond.
    """

    def __init__(
        self,
        settings: InjectorSettings,
        devices: Callable[[], tuple[AdvertisedDevice, ...]],
        changes: VersionSignal,
        *,
        check_seconds: float = CHECK_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._settings = settings
        self._check_seconds = check_seconds
        self._uses_files = settings.writes_cdi or settings.pass_device_specs
        self._files = DeviceFiles(
            devices,
            settings.driver_root,
            partial(CdiFile, settings.cdi_root, settings.cdi_kind) if settings.writes_cdi else None,
            changes,
            patience_seconds,
        )

    async def prepare(self) -> None:
        """Puts the files in place that a container with any of the devices needs, if the strategies need files.

        Raises:
            OSError: The CDI file cannot be written, or the file system does not respond in time.
        """
        if self._uses_files:
            await self._files.prepare()

    def loops(self, beat: Callable[[str], Callable[[], None]]) -> dict[str, Coroutine[Any, Any, None]]:
        """Returns the coroutines that must run as long as the agent, by name.

        Args:
            beat: Returns the function that a loop of a name calls in each iteration.
        """
        if not self._settings.writes_cdi:
            return {}
        return {"CDI file": self._files.keep(beat("CDI file"), self._check_seconds)}

    def usable(self, devices: tuple[AdvertisedDevice, ...]) -> tuple[AdvertisedDevice, ...]:
        """Returns the devices to advertise. Those that no container can get now are marked unhealthy.

        Where the agent writes the CDI file, a device that was not scanned yet is left out: it is not in the file.

        Args:
            devices: All devices of the node.
        """
        if not self._settings.writes_cdi:
            return devices
        return tuple(
            replace(device, healthy=False, obstacle=obstacle) if (obstacle := self.obstacle(device)) else device
            for device in devices
            if device.uuid in self._files.nodes
        )

    @property
    def withholds(self) -> bool:
        """Whether `obstacle` can return anything but an empty string."""
        return self._settings.writes_cdi

    def obstacle(self, device: AdvertisedDevice) -> str:
        """Returns why no container can get a device without a fault; empty: it can, or it was not scanned yet."""
        files = self._files
        if not self.withholds or not device.healthy or device.uuid in files.ready:
            return ""
        return files.problem or ("no device node" if device.uuid in files.nodes else "")

    @property
    def task(self) -> str:
        """What failed when `prepare` raises, for messages."""
        return "write the CDI file" if self._settings.writes_cdi else "scan the device nodes"

    def missing(self, uuids: Iterable[str]) -> list[str]:
        """Returns the devices that no container can get according to the last scan."""
        return sorted(set(uuids).difference(self._files.ready)) if self._settings.writes_cdi else []

    def response(self, uuids: tuple[str, ...]) -> pb.ContainerAllocateResponse:
        """Builds the kubelet's response for a container with these devices, in index order."""
        settings, kind = self._settings, self._settings.cdi_kind
        response = pb.ContainerAllocateResponse()
        if DeviceListStrategy.ENVVAR in settings.strategies:
            response.envs[ENV_VISIBLE_DEVICES] = ",".join(uuids)
        if DeviceListStrategy.VOLUME_MOUNTS in settings.strategies:
            response.envs[ENV_VISIBLE_DEVICES] = VISIBLE_DEVICES_MOUNTS
            response.mounts.extend(
                pb.Mount(host_path="/dev/null", container_path=f"{VISIBLE_DEVICES_MOUNTS}/{uuid}", read_only=True)
                for uuid in uuids
            )
        if DeviceListStrategy.CDI_CRI in settings.strategies:
            response.cdi_devices.extend(pb.CDIDevice(name=qualified_name(kind, uuid)) for uuid in uuids)
        if DeviceListStrategy.CDI_ANNOTATIONS in settings.strategies:
            response.annotations.update(annotation(kind, uuids))
        response.mounts.extend(
            pb.Mount(host_path=str(host), container_path=str(path), read_only=True)
            for host, path in settings.container_mounts
        )
        if settings.pass_device_specs:
            # Nodes that several devices have in common are passed once.
            nodes = dict.fromkeys(node for uuid in uuids for node in self.nodes(uuid))
            response.devices.extend(
                pb.DeviceSpec(container_path=path, host_path=host, permissions="rw") for path, host in nodes
            )
        return response

    def nodes(self, uuid: str) -> tuple[tuple[str, str], ...]:
        """Returns a device's nodes that the last scan found, as (path in the container, path on the host).

        Empty if its own node is missing, because those that all devices have in common are of no use without it.
        """
        return self._files.nodes.get(uuid, ())

    async def close(self) -> None:
        """Removes the files that were put in place.

        Raises:
            OSError: The CDI file cannot be removed.
        """
        await self._files.close()
