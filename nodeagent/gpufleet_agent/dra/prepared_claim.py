"""A claim whose devices are prepared for its containers, and its form in the checkpoint. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpufleet_agent.kube.resource_claims import ConsumerPod
from gpufleet_common.device_ids import device_name

CHECKPOINT_VERSION = 1


@dataclass(frozen=True, slots=True)
class PreparedDevice:
    """A device of a prepared claim."""

    request: str
    uuid: str
    share_id: str | None = None
    memory_mib: int | None = None
    """Memory that the claim has of it; None: all of it."""

    @property
    def name(self) -> str:
        """Name of the device in slices and claims."""
        return device_name(self.uuid)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedClaim:
    """A claim, its pods, and what its containers get."""

    namespace: str
    name: str
    uid: str
    pods: tuple[ConsumerPod, ...]
    devices: tuple[PreparedDevice, ...]
    """In the order of the allocation."""
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Environment variables of the containers that use a request, by request."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def pod_uids(self) -> frozenset[str]:
        return frozenset(pod.uid for pod in self.pods)

    def holds(self, uuid: str) -> bool:
        return any(device.uuid == uuid for device in self.devices)


def dump_checkpoint(claim: PreparedClaim) -> str:
    return json.dumps(
        {
            "version": CHECKPOINT_VERSION,
            "namespace": claim.namespace,
            "name": claim.name,
            "uid": claim.uid,
            "pods": [{"name": pod.name, "uid": pod.uid} for pod in claim.pods],
            "devices": [
                {
                    "request": device.request,
                    "uuid": device.uuid,
                    "shareID": device.share_id,
                    "memoryMiB": device.memory_mib,
                }
                for device in claim.devices
            ],
            "env": {request: dict(values) for request, values in claim.env.items()},
        }
    )


def load_checkpoint(text: str) -> PreparedClaim:
    """Decodes a checkpoint.

    Raises:
        ValueError: It is damaged, or of another version.
    """
    try:
        document = json.loads(text)
        if document["version"] != CHECKPOINT_VERSION:
            raise ValueError(f"version: Invalid value: {document['version']}: must be {CHECKPOINT_VERSION}")
        return PreparedClaim(
            namespace=str(document["namespace"]),
            name=str(document["name"]),
            uid=str(document["uid"]),
            pods=tuple(ConsumerPod(str(pod["name"]), str(pod["uid"])) for pod in document["pods"]),
            devices=tuple(_device(entry) for entry in document["devices"]),
            env={
                str(request): {str(name): str(value) for name, value in values.items()}
                for request, values in document["env"].items()
            },
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _device(entry: Mapping[str, Any]) -> PreparedDevice:
    memory, share = entry.get("memoryMiB"), entry.get("shareID")
    return PreparedDevice(
        request=str(entry["request"]),
        uuid=str(entry["uuid"]),
        share_id=None if share is None else str(share),
        memory_mib=None if memory is None else int(memory),
    )
