"""How devices get into a container: the device list strategies."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import structlog

from gpufleet_agent.plugin.answers import KnownDevice
from gpufleet_agent.plugin.cdi import CdiFile, annotation, qualified
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_api.names import CDI_KIND, ENV_VISIBLE_DEVICES

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks for device nodes that are missing."""


class Strategy(StrEnum):
    """Who is told of a container's devices. Names as those of NVIDIA's plugin."""

    ENVVAR = "envvar"
    """NVIDIA's runtime, in `NVIDIA_VISIBLE_DEVICES`."""
    CDI_CRI = "cdi-cri"
    """The container runtime, in the CRI's field for CDI devices."""
    CDI_ANNOTATIONS = "cdi-annotations"
    """The container runtime, in annotations: for those that don't have that field yet."""


CDI = frozenset({Strategy.CDI_CRI, Strategy.CDI_ANNOTATIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionSettings:
    """What is configured."""

    strategies: frozenset[Strategy] = frozenset({Strategy.ENVVAR})
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


class Injection:
    """Puts devices into containers.

    Args:
        settings: What is configured.
        devices: The devices of the node, from memory.
        look_seconds: How often to look for device nodes where they matter.
    """

    def __init__(
        self,
        settings: InjectionSettings,
        devices: Callable[[], tuple[KnownDevice, ...]],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._settings = settings
        self._devices = devices
        self._file = CdiFile(settings.cdi_root, settings.cdi_kind, self.nodes) if settings.writes_cdi else None
        self._without: frozenset[str] = frozenset()
        self.look_seconds = look_seconds if settings.writes_cdi else None
        """How often to ask `usable` again, as nobody tells when a device node comes or goes; None: no need to."""

    def prepare(self) -> None:
        """Have everything in place that a container with any of the devices needs.

        Raises:
            OSError: The CDI file can't be written.
        """
        if self._file is not None:
            self._file.write(self._devices())

    def usable(self, devices: tuple[KnownDevice, ...]) -> tuple[KnownDevice, ...]:
        """All of the devices; those that the agent's CDI file can't give to a container are not healthy.

        Args:
            devices: All devices of the node.
        """
        if self._file is None:
            return devices
        without = frozenset(device.uuid for device in devices if not self._has_own_node(device))
        if without != self._without:
            self._without = without
            if without:
                root = str(self._settings.driver_root)
                log.warning("devices not offered: no device node", devices=sorted(without), driver_root=root)
        return tuple(replace(device, healthy=False) if device.uuid in without else device for device in devices)

    def response(self, uuids: tuple[str, ...]) -> pb.ContainerAllocateResponse:
        """What the kubelet is told for a container with these devices, in index order."""
        settings, kind = self._settings, self._settings.cdi_kind
        answer = pb.ContainerAllocateResponse()
        if Strategy.ENVVAR in settings.strategies:
            answer.envs[ENV_VISIBLE_DEVICES] = ",".join(uuids)
        if Strategy.CDI_CRI in settings.strategies:
            answer.cdi_devices.extend(pb.CDIDevice(name=qualified(kind, uuid)) for uuid in uuids)
        if Strategy.CDI_ANNOTATIONS in settings.strategies:
            answer.annotations.update(annotation(kind, uuids))
        if settings.pass_device_specs:
            # Those that the devices have in common once.
            nodes = dict.fromkeys(node for uuid in uuids for node in self.nodes(uuid))
            answer.devices.extend(
                pb.DeviceSpec(container_path=path, host_path=host, permissions="rw") for path, host in nodes
            )
        return answer

    def nodes(self, uuid: str) -> tuple[tuple[str, str], ...]:
        """The device nodes of a device that exist: path in the container, path on the host.

        None when its own is missing: those that all devices have in common are of no use alone.
        """
        found = [device.nodes for device in self._devices() if device.uuid == uuid and self._has_own_node(device)]
        return tuple(self._existing(path for nodes in found for path in nodes))

    def close(self) -> None:
        """Take away what was put in place.

        Raises:
            OSError: The CDI file can't be removed.
        """
        if self._file is not None:
            self._file.remove()

    def _has_own_node(self, device: KnownDevice) -> bool:
        # The first one is the device's own.
        return any(self._existing(device.nodes[:1]))

    def _existing(self, paths: Iterable[str]) -> Iterable[tuple[str, str]]:
        for path in paths:
            host = self._settings.driver_root / path.lstrip("/")
            if host.exists():
                yield path, str(host)
