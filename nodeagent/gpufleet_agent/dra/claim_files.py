"""The files of prepared claims: a CDI file for the container runtime, and a checkpoint beside it.

Both are in the CDI directory, which usually is in memory: after a reboot, the kubelet prepares all claims again. The
checkpoint has what the CDI file cannot express in the version that all runtimes read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from gpufleet_agent.dra.prepared_claim import PreparedClaim, PreparedDevice, dump_checkpoint, load_checkpoint
from gpufleet_agent.plugin.inject.cdi import VERSION, NodeLookup, device_nodes, qualified_name
from gpufleet_agent.plugin.inject.cdi_directory import remove_file, replace_file
from gpufleet_agent.plugin.inject.strategies import VISIBLE_DEVICES_MOUNTS
from gpufleet_api.names import DRA_DRIVER, GROUP

log = structlog.get_logger(__name__)

KIND = f"{GROUP}/claim"
_PREFIX = f"{DRA_DRIVER}-claim-"
_CHECKPOINT = ".checkpoint"
"""Runtimes read only names that end in .json or .yaml."""
_READ_ONLY = ["ro", "nosuid", "nodev", "rbind", "rprivate"]


@dataclass(frozen=True, slots=True)
class ClaimMounts:
    """What is mounted into containers, beside the device nodes."""

    directories: tuple[tuple[Path, Path], ...] = ()
    """With the driver's libraries: path on the host, path in the container."""
    lists_devices: bool = False
    """Whether NVIDIA's runtime reads the list of devices from mounts."""


def cdi_name(claim: PreparedClaim, position: int) -> str:
    """Returns the name of one of the claim's devices in CDI. It contains the UUID.

    The kubelet shows it in `allocatedResourcesStatus` of the pod.
    """
    return f"{claim.uid}-{position}-{claim.devices[position].uuid}"


def cdi_id(claim: PreparedClaim, position: int) -> str:
    return qualified_name(KIND, cdi_name(claim, position))


def build_claim_spec(claim: PreparedClaim, nodes: NodeLookup, mounts: ClaimMounts = ClaimMounts()) -> dict[str, Any]:
    """Builds the CDI specification of a claim.

    Where a container gets several devices, the runtime merges device nodes, and of an environment variable the last
    value remains. So all devices of a request have the same variables.
    """
    spec: dict[str, Any] = {
        "cdiVersion": VERSION,
        "kind": KIND,
        "devices": [
            {"name": cdi_name(claim, position), "containerEdits": _edits(claim, device, nodes, mounts)}
            for position, device in enumerate(claim.devices)
        ],
    }
    if mounts.directories:
        # For all devices, so that a container with several of them gets each mount once.
        spec["containerEdits"] = {"mounts": [_mount(str(host), str(path)) for host, path in mounts.directories]}
    return spec


def _edits(claim: PreparedClaim, device: PreparedDevice, nodes: NodeLookup, mounts: ClaimMounts) -> dict[str, Any]:
    edits: dict[str, Any] = {"env": [f"{name}={value}" for name, value in claim.env.get(device.request, {}).items()]}
    found = nodes(device.uuid)
    if found:
        edits["deviceNodes"] = device_nodes(found)
    if mounts.lists_devices:
        edits["mounts"] = [_mount("/dev/null", f"{VISIBLE_DEVICES_MOUNTS}/{device.uuid}")]
    return edits


def _mount(host: str, path: str) -> dict[str, Any]:
    return {"hostPath": host, "containerPath": path, "options": _READ_ONLY}


class ClaimFiles:
    """The files of all prepared claims. Its methods block.

    Args:
        directory: Directory that the runtime reads; created if missing.
        mounts: What is mounted into the containers.
    """

    def __init__(self, directory: Path, mounts: ClaimMounts = ClaimMounts()) -> None:
        self._directory = directory
        self._mounts = mounts

    def load(self) -> dict[str, PreparedClaim]:
        """Returns the claims of all checkpoints, by UID. Damaged ones are removed.

        Raises:
            OSError: The directory cannot be read.
        """
        return {claim.uid: claim for claim in self._load()}

    def write(self, claim: PreparedClaim, nodes: NodeLookup) -> None:
        """Writes the files of a claim; those that have the content already are left alone.

        Raises:
            OSError: A file cannot be written.
        """
        # The checkpoint first: without it, nothing would remove the CDI file.
        replace_file(self._path(claim.uid, _CHECKPOINT), dump_checkpoint(claim).encode())
        content = json.dumps(build_claim_spec(claim, nodes, self._mounts), indent=1)
        replace_file(self._path(claim.uid, ".json"), content.encode())

    def remove(self, uid: str) -> None:
        """Removes the files of a claim. Has no effect if there are none.

        Raises:
            OSError: A file cannot be removed.
        """
        for suffix in (".json", _CHECKPOINT):
            remove_file(self._path(uid, suffix))

    def _load(self) -> Iterator[PreparedClaim]:
        for path in sorted(self._directory.glob(f"{_PREFIX}*{_CHECKPOINT}")):
            try:
                yield load_checkpoint(path.read_text(encoding="utf-8"))
            except ValueError as error:
                log.warning("damaged checkpoint of a claim removed", path=str(path), error=str(error))
                path.unlink(missing_ok=True)

    def _path(self, uid: str, suffix: str) -> Path:
        return self._directory / f"{_PREFIX}{uid}{suffix}"
