"""Asks a kubelet who has which devices, on its own PodResources socket and with our own copy of the protocol.

A test node keeps its socket in its own mount namespace. A unix socket is reached by its file alone, so
`/proc/<pid>/root/...` of any process inside the node leads to it from outside, with containers as with kind's nodes.
"""

from collections import defaultdict
from pathlib import Path

import grpc

from proof.errors import EvidenceError
from proof.evidence import Holding
from proof.podresources_pb2 import ListRequest, ListResponse

METHOD = "/v1.PodResourcesLister/List"
SOCKET = "var/lib/kubelet/pod-resources/kubelet.sock"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # the kubelet's own limit; grpc's default is 4 MiB


def socket_of_node(pid: int) -> Path:
    """The PodResources socket of the node in which process `pid` runs."""
    return Path(f"/proc/{pid}/root") / SOCKET


def list_pod_resources(node: str, socket: Path, *, timeout_seconds: float = 10) -> tuple[Holding, ...]:
    """Every container's device-plugin devices on `node`, one Holding per container and resource.

    Raises:
        EvidenceError: the kubelet did not answer.
    """
    options = (("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),)
    with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
        call = channel.unary_unary(
            METHOD,
            request_serializer=ListRequest.SerializeToString,
            response_deserializer=ListResponse.FromString,
        )
        try:
            response = call(ListRequest(), timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise EvidenceError(f"the kubelet of {node} did not answer on {socket}: {error}") from error
    return holdings(node, response)


def holdings(node: str, response: ListResponse) -> tuple[Holding, ...]:
    """Gather the one-entry-per-device answer by container and resource, in stable order."""
    ids: defaultdict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for pod in response.pods:
        for container in pod.containers:
            for devices in container.devices:
                ids[pod.namespace, pod.name, container.name, devices.resource] += devices.ids
    return tuple(Holding(node, *key, devices=tuple(sorted(found))) for key, found in sorted(ids.items()))
