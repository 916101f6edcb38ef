"""Asks a kubelet who has which devices, on its own PodResources socket and with our own copy of the protocol.

A unix socket is reached by its file alone, whatever namespaces the kubelet lives in: a test node's socket is a file
that this machine sees too.
"""

import os
from collections import defaultdict
from pathlib import Path

import grpc

from gpufleet_e2e.proof.errors import EvidenceError
from gpufleet_e2e.proof.evidence import Holding
from gpufleet_e2e.proof.podresources_pb2 import ListRequest, ListResponse

METHOD = "/v1.PodResourcesLister/List"
SOCKET = Path("pod-resources", "kubelet.sock")
"""Below the kubelet's folder, which is /var/lib/kubelet on the node."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # the kubelet's own limit; grpc's default is 4 MiB


def list_pod_resources(node: str, socket: Path, *, timeout_seconds: float = 10) -> tuple[Holding, ...]:
    """Every container's device-plugin devices on `node`, one Holding per container and resource.

    Raises:
        EvidenceError: the kubelet did not answer.
    """
    try:
        # A socket's address holds 107 characters and a test node's folder may lie deep, so go by a descriptor of it.
        folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise EvidenceError(f"no socket of the kubelet of {node}: {error}") from error
    try:
        response = _list(f"unix:/proc/self/fd/{folder}/{socket.name}", timeout_seconds)
    except grpc.RpcError as error:
        raise EvidenceError(f"the kubelet of {node} did not answer on {socket}: {error}") from error
    finally:
        os.close(folder)
    return holdings(node, response)


def _list(target: str, timeout_seconds: float) -> ListResponse:
    options = (
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # grpc keeps connections by address in one pool of the process. A descriptor's number is used again for the next
        # node, so the address is the same, and the answer would be that of the node before.
        ("grpc.use_local_subchannel_pool", 1),
    )
    with grpc.insecure_channel(target, options=options) as channel:
        call = channel.unary_unary(
            METHOD,
            request_serializer=ListRequest.SerializeToString,
            response_deserializer=ListResponse.FromString,
        )
        return call(ListRequest(), timeout=timeout_seconds)


def holdings(node: str, response: ListResponse) -> tuple[Holding, ...]:
    """Gather the one-entry-per-device answer by container and resource, in stable order."""
    ids: defaultdict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for pod in response.pods:
        for container in pod.containers:
            for devices in container.devices:
                ids[pod.namespace, pod.name, container.name, devices.resource] += devices.ids
    return tuple(Holding(node, *key, devices=tuple(sorted(found))) for key, found in sorted(ids.items()))
