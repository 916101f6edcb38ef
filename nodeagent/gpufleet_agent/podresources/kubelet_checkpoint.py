"""Reads the UIDs of pods that hold devices from the kubelet's checkpoint of its device manager.

PodResources names pods, but not their UIDs, which are in the paths of their cgroups. For a pod with a reservation the
reservation has the UID; for any other pod only this file does. It is the kubelet's own, so a file of another form is
no error: the UIDs are then unknown.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)

FILE = "kubelet_internal_checkpoint"
"""In the device plugin directory."""

HeldDevices = tuple[str, str, frozenset[str]]
"""Container name, resource, device IDs."""


class KubeletCheckpoint:
    """The file, read again whenever it has changed.

    Args:
        directory: The kubelet's device plugin directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._version: tuple[int, int] | None = None
        """Of the file that was read; None: there was none."""
        self._uids: Mapping[HeldDevices, str] = {}

    def pod_uids(self) -> Mapping[HeldDevices, str]:
        """Returns the pod UID of each container with devices; empty if the file cannot be read."""
        try:
            version = self._current_version()
            if version != self._version:
                self._uids = {} if version is None else parse_checkpoint(self._path.read_text(encoding="utf-8"))
                self._version = version
        except (OSError, ValueError) as error:
            log.info("kubelet checkpoint not read", path=str(self._path), error=str(error))
            self._uids, self._version = {}, None
        return self._uids

    def unchanged(self) -> Mapping[HeldDevices, str] | None:
        """Returns the same as `pod_uids` if that need not read the file, else None."""
        try:
            return self._uids if self._current_version() == self._version else None
        except OSError:
            return None

    def _current_version(self) -> tuple[int, int] | None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:  # nothing was ever allocated on this node
            return None
        return stat.st_ino, stat.st_mtime_ns


def parse_checkpoint(text: str) -> Mapping[HeldDevices, str]:
    """Returns pod UIDs by container and devices; devices that are listed for two pods are left out.

    Raises:
        ValueError: The text is not JSON.
    """
    found: dict[HeldDevices, str | None] = {}
    for held, uid in _entries(json.loads(text)):
        found[held] = uid if found.get(held, uid) == uid else None
    return {held: uid for held, uid in found.items() if uid is not None}


def _entries(document: Any) -> Iterator[tuple[HeldDevices, str]]:
    for entry in _list(_map(_map(document).get("Data")).get("PodDeviceEntries")):
        fields = _map(entry)
        by_numa_node = _map(fields.get("DeviceIDs")).values()
        ids = frozenset(str(device_id) for listed in by_numa_node for device_id in _list(listed))
        uid = fields.get("PodUID")
        if isinstance(uid, str) and uid and ids:
            yield (str(fields.get("ContainerName")), str(fields.get("ResourceName")), ids), uid


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
