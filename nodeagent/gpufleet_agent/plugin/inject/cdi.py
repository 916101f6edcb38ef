"""Writes the Container Device Interface file, which maps device names to device nodes for the container runtime.

The runtime reads the directory by itself, and again whenever a file in it changes. So the file must appear complete,
must be present before the devices in it are advertised, and must be valid: the runtime ignores a file with one wrong
field.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from gpufleet_agent.plugin.inject.cdi_directory import remove_file, replace_file
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_api.names import ENV_VISIBLE_DEVICES

log = structlog.get_logger(__name__)

VERSION = "0.5.0"
"""Of the specification: the lowest with all fields used here, because runtimes reject those above their own."""

VOID = "void"
"""Value of `NVIDIA_VISIBLE_DEVICES` with which NVIDIA's runtime adds no device. See `build_spec`."""

ANNOTATION_PREFIX = "cdi.k8s.io/gpufleet_"

NodeLookup = Callable[[str], tuple[tuple[str, str], ...]]
"""Maps a UUID to device nodes, as (path in the container, path on the host). Empty: the device is unusable."""


def build_spec(kind: str, devices: Iterable[AdvertisedDevice], nodes: NodeLookup) -> dict[str, Any]:
    """Builds the specification of those devices that have nodes, each under its UUID.

    A device without nodes is left out: with an empty entry a container would start without the device, whereas the
    runtime reports an unknown name as an error.

    `NVIDIA_VISIBLE_DEVICES=void` is included because images set `all`, and NVIDIA's runtime, where it is the node's
    default, would then add every GPU to the injected ones.
    """
    return {
        "cdiVersion": VERSION,
        "kind": kind,
        "devices": [
            {"name": device.uuid, "containerEdits": _edits(found)}
            for device in sorted(devices, key=lambda device: device.index)
            if (found := nodes(device.uuid))
        ],
    }


def device_nodes(nodes: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Builds the entries of device nodes."""
    return [{"path": path, "permissions": "rw"} | ({} if host == path else {"hostPath": host}) for path, host in nodes]


def qualified_name(kind: str, name: str) -> str:
    """Returns a device's full name, such as `gpufleet.dev/gpu=GPU-1`."""
    return f"{kind}={name}"


def annotation(kind: str, uuids: tuple[str, ...]) -> dict[str, str]:
    """Returns the annotation for runtimes that do not read the CRI's CDI field.

    There is one for each allocation. The key has the first device's UUID, so two resources of one container never
    share it.
    """
    return {f"{ANNOTATION_PREFIX}{uuids[0]}": ",".join(qualified_name(kind, uuid) for uuid in uuids)}


class CdiFile:
    """The CDI file of this node's devices.

    Args:
        directory: Directory that the runtime reads; created if missing.
        kind: Vendor and class, such as `gpufleet.dev/gpu`.
        nodes: Returns the existing device nodes.
    """

    def __init__(self, directory: Path, kind: str, nodes: NodeLookup) -> None:
        self._path = directory / f"{kind.replace('/', '-')}.json"
        self._kind = kind
        self._nodes = nodes

    def write(self, devices: tuple[AdvertisedDevice, ...]) -> None:
        """Writes the specification of these devices, unless the file has it already.

        Raises:
            OSError: The file cannot be written.
        """
        spec = build_spec(self._kind, devices, self._nodes)
        if not spec["devices"]:
            self.remove()  # a file without devices is invalid
            return
        if replace_file(self._path, json.dumps(spec, indent=1).encode()):
            log.info("CDI file written", path=str(self._path), devices=len(spec["devices"]))

    def remove(self) -> None:
        """Removes the file, and what a process that was killed during a write has left.

        Raises:
            OSError: The file cannot be removed.
        """
        remove_file(self._path)


def _edits(nodes: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {
        "env": [f"{ENV_VISIBLE_DEVICES}={VOID}"],
        "deviceNodes": device_nodes(nodes),
    }
