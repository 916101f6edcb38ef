"""Reads the devices of containers from a kubelet's PodResources socket, with a separate copy of the protocol.

A unix socket is reached by its file, independent of the kubelet's namespaces: a test node's socket is a file of this
machine.
"""

import os
from collections import defaultdict
from pathlib import Path

import grpc

from gpufleet_e2e.proof.claims import raw_device
from gpufleet_e2e.proof.errors import EvidenceError
from gpufleet_e2e.proof.evidence import Holding
from gpufleet_e2e.proof.podresources_pb2 import ListRequest, ListResponse

METHOD = "/v1.PodResourcesLister/List"
SOCKET = Path("pod-resources", "kubelet.sock")
"""Below the kubelet's folder, which is /var/lib/kubelet on the node."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # the kubelet's limit; grpc's default is 4 MiB


def list_pod_resources(node: str, socket: Path, *, timeout_seconds: float = 10) -> tuple[Holding, ...]:
    """Reads every container's devices on `node`, one Holding per container and resource or driver.

    Raises:
        EvidenceError: The kubelet did not respond.
    """
    try:
        # A socket's address has at most 107 characters, which a test node's path may exceed: use a descriptor.
        folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise EvidenceError(f"socket of the kubelet of {node} not found: {error}") from error
    try:
        response = _list(f"unix:/proc/self/fd/{folder}/{socket.name}", timeout_seconds)
    except grpc.RpcError as error:
        raise EvidenceError(f"the kubelet of {node} did not respond on {socket}: {error}") from error
    finally:
        os.close(folder)
    return holdings(node, response)


def _list(target: str, timeout_seconds: float) -> ListResponse:
    options = (
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # grpc pools connections by address. A descriptor's number is used again for the next node, so the address is
        # the same, and the response would be that of the previous node.
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
    """Groups the response, which has one entry per device, by container and resource, in stable order.

    The resource of claimed devices is the name of their driver; `ClaimEvidence` finds their UUIDs.
    """
    ids: defaultdict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for pod in response.pods:
        for container in pod.containers:
            for devices in container.devices:
                ids[pod.namespace, pod.name, container.name, devices.resource] += devices.ids
            for claim in container.dynamic_resources:
                # A kubelet that prepares a claim again after a reboot adds its devices to those in its checkpoint.
                known: set[tuple[str, str]] = set()
                for one in claim.claim_resources:
                    device = (one.driver_name, raw_device(one.pool_name, one.device_name, one.share_id))
                    if device not in known:
                        known.add(device)
                        ids[pod.namespace, pod.name, container.name, device[0]].append(device[1])
    return tuple(Holding(node, *key, devices=tuple(sorted(found))) for key, found in sorted(ids.items()))
