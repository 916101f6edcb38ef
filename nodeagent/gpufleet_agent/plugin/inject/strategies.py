"""How devices get into a container: the device list strategies."""

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

LOOK_SECONDS = 5.0
"""Between two looks for device nodes that are missing."""


class DeviceListStrategy(StrEnum):
    """Who is told of a container's devices. Names as those of NVIDIA's plugin."""

    ENVVAR = "envvar"
    """NVIDIA's runtime, in `NVIDIA_VISIBLE_DEVICES`."""
    CDI_CRI = "cdi-cri"
    """The container runtime, in the CRI's field for CDI devices."""
    CDI_ANNOTATIONS = "cdi-annotations"
    """The container runtime, in annotations: for those that don't have that field yet."""


CDI = frozenset({DeviceListStrategy.CDI_CRI, DeviceListStrategy.CDI_ANNOTATIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectorSettings:
    """What is configured."""

    strategies: frozenset[DeviceListStrategy] = frozenset({DeviceListStrategy.ENVVAR})
    pass_device_specs: bool = False
    """Whether the kubelet is told the device nodes, too."""
    driver_root: Path = Path("/")
    """Where the driver's `dev` directory is on the host. The agent must see it at the same path."""
    cdi_root: Path = Path("/var/run/cdi")
    cdi_kind: str = CDI_KIND
    """Of the devices' CDI names. One that isn't ours: somebody else writes the file."""

    @property
    def writes_cdi(self) -> bool:
        """Whether the CDI file is the agent's."""
        return bool(self.strategies & CDI) and self.cdi_kind == CDI_KIND


class DeviceInjector:
    """Puts devices into containers.

    Args:
        settings: What is configured.
        devices: The devices of the node, from memory.
        changes: Notified when `usable` answers something else than before.
        look_seconds: How often to look for device nodes where they matter.
        patience_seconds: How long the file system may take to answer.
    """

    def __init__(
        self,
        settings: InjectorSettings,
        devices: Callable[[], tuple[AdvertisedDevice, ...]],
        changes: VersionSignal,
        *,
        look_seconds: float = LOOK_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._settings = settings
        self._look_seconds = look_seconds
        self._prepares = settings.writes_cdi or settings.pass_device_specs
        self._files = DeviceFiles(
            devices,
            settings.driver_root,
            partial(CdiFile, settings.cdi_root, settings.cdi_kind) if settings.writes_cdi else None,
            changes,
            patience_seconds,
        )

    async def prepare(self) -> None:
        """Have everything in place that a container with any of the devices needs, if anything is.

        Raises:
            OSError: The CDI file can't be written, or the file system doesn't answer in time.
        """
        if self._prepares:
            await self._files.prepare()

    def loops(self, beat: Callable[[str], Callable[[], None]]) -> dict[str, Coroutine[Any, Any, None]]:
        """What has to run for ever, by name.

        Args:
            beat: Gives what a loop of this name calls each time round.
        """
        if not self._settings.writes_cdi:
            return {}
        return {"CDI file": self._files.keep(beat("CDI file"), self._look_seconds)}

    def usable(self, devices: tuple[AdvertisedDevice, ...]) -> tuple[AdvertisedDevice, ...]:
        """The devices that may be named to the kubelet; those that no container can be given now are not healthy.

        With the agent's CDI file, one that nobody has looked at yet is left out: it isn't in the file.

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
        """Whether `obstacle` can be anything but empty."""
        return self._settings.writes_cdi

    def obstacle(self, device: AdvertisedDevice) -> str:
        """Why no container can be given a device that has no fault; empty: it can, or nobody has looked yet."""
        files = self._files
        if not self.withholds or not device.healthy or device.uuid in files.in_place:
            return ""
        return files.problem or ("no device node" if device.uuid in files.nodes else "")

    @property
    def task(self) -> str:
        """What `prepare` has failed to do when it raises, in words."""
        return "write the CDI file" if self._settings.writes_cdi else "look at the device nodes"

    def lacks(self, uuids: Iterable[str]) -> list[str]:
        """Those of the devices that the last look found no container could be given."""
        return sorted(set(uuids).difference(self._files.in_place)) if self._settings.writes_cdi else []

    def response(self, uuids: tuple[str, ...]) -> pb.ContainerAllocateResponse:
        """What the kubelet is told for a container with these devices, in index order."""
        settings, kind = self._settings, self._settings.cdi_kind
        answer = pb.ContainerAllocateResponse()
        if DeviceListStrategy.ENVVAR in settings.strategies:
            answer.envs[ENV_VISIBLE_DEVICES] = ",".join(uuids)
        if DeviceListStrategy.CDI_CRI in settings.strategies:
            answer.cdi_devices.extend(pb.CDIDevice(name=qualified_name(kind, uuid)) for uuid in uuids)
        if DeviceListStrategy.CDI_ANNOTATIONS in settings.strategies:
            answer.annotations.update(annotation(kind, uuids))
        if settings.pass_device_specs:
            # Those that the devices have in common once.
            nodes = dict.fromkeys(node for uuid in uuids for node in self.nodes(uuid))
            answer.devices.extend(
                pb.DeviceSpec(container_path=path, host_path=host, permissions="rw") for path, host in nodes
            )
        return answer

    def nodes(self, uuid: str) -> tuple[tuple[str, str], ...]:
        """The device nodes of a device that existed at the last look: path in the container, path on the host.

        None when its own is missing: those that all devices have in common are of no use alone.
        """
        return self._files.nodes.get(uuid, ())

    async def close(self) -> None:
        """Take away what was put in place.

        Raises:
            OSError: The CDI file can't be removed.
        """
        await self._files.close()
