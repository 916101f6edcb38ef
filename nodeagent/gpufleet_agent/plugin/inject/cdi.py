"""The Container Device Interface: a file that tells the container runtime what a device's name stands for.

The runtime reads the directory by itself and whenever a file in it changes, so a file must appear whole, must be there
before the kubelet hears of the devices in it, and must be valid: the runtime drops a file with one wrong field.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_api.names import ENV_VISIBLE_DEVICES

log = structlog.get_logger(__name__)

VERSION = "0.5.0"
"""Of the specification: the lowest that knows all fields used here, as runtimes refuse those above their own."""

ANNOTATION_PREFIX = "cdi.k8s.io/gpufleet_"

NodeLookup = Callable[[str], tuple[tuple[str, str], ...]]
"""From UUID to device nodes: path in the container, path on the host. None: a container couldn't use the device."""


def build_spec(kind: str, devices: Iterable[AdvertisedDevice], nodes: NodeLookup) -> dict[str, Any]:
    """The specification of those devices that have nodes, each under its UUID.

    One without is left out: its name would stand for nothing, and a container would start that has no device. As it
    is, the runtime says that it doesn't know the name.

    `NVIDIA_VISIBLE_DEVICES=void` is in it because images set `all`, and NVIDIA's runtime, where it is the node's
    default, would obey that and add every GPU to the ones that are injected here.
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


def qualified_name(kind: str, uuid: str) -> str:
    """A device's full name, such as `gpufleet.dev/gpu=GPU-1`."""
    return f"{kind}={uuid}"


def annotation(kind: str, uuids: tuple[str, ...]) -> dict[str, str]:
    """How runtimes are told that don't read the CRI's own field.

    One for each allocation, so the key has the first device's UUID: two resources of one container never share it.
    """
    return {f"{ANNOTATION_PREFIX}{uuids[0]}": ",".join(qualified_name(kind, uuid) for uuid in uuids)}


class CdiFile:
    """The file of this node's devices.

    Args:
        directory: Where the runtime looks; made if missing.
        kind: Vendor and class, such as `gpufleet.dev/gpu`.
        nodes: The device nodes that exist.
    """

    def __init__(self, directory: Path, kind: str, nodes: NodeLookup) -> None:
        self._path = directory / f"{kind.replace('/', '-')}.json"
        self._kind = kind
        self._nodes = nodes

    def write(self, devices: tuple[AdvertisedDevice, ...]) -> None:
        """Make the file say what these devices are, if it doesn't already.

        Raises:
            OSError: It can't be written.
        """
        spec = build_spec(self._kind, devices, self._nodes)
        if not spec["devices"]:
            self.remove()  # a file without devices is invalid
            return
        content = json.dumps(spec, indent=1).encode()
        try:
            # Bytes: whatever somebody has put there, it needn't be text.
            if self._path.read_bytes() == content:
                return
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        # Runtimes read names that end in .json or .yaml alone.
        part = self._path.with_suffix(".part")
        part.write_bytes(content)
        part.rename(self._path)
        log.info("CDI file written", path=str(self._path), devices=len(spec["devices"]))

    def remove(self) -> None:
        """Take the file away, and what a process that was killed while it wrote has left.

        Raises:
            OSError: It can't be removed.
        """
        self._path.unlink(missing_ok=True)
        self._path.with_suffix(".part").unlink(missing_ok=True)


def _edits(nodes: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {
        "env": [f"{ENV_VISIBLE_DEVICES}=void"],
        "deviceNodes": [
            {"path": path, "permissions": "rw"} | ({} if host == path else {"hostPath": host}) for path, host in nodes
        ],
    }
