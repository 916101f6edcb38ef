"""Separates one pod from the apiserver: all other connections, and connections to the pod, still work."""

from collections.abc import Iterator
from contextlib import contextmanager

from gpufleet_e2e.support.api import Api, JsonObject
from gpufleet_testbed import Node

SERVICE = "/api/v1/namespaces/default/services/kubernetes"


@contextmanager
def without_apiserver(api: Api, node: Node, pod: JsonObject) -> Iterator[None]:
    """Drops what the pod sends to the apiserver while the block runs, also after its containers restart.

    The rules match the address to which a connection was opened, so that replies to the kubelet's probes and to
    requests through the apiserver's proxy pass.

    Args:
        api: The cluster's.
        node: The pod's.
        pod: A pod that has an address.
    """
    address, service = pod["status"]["podIP"], api.get(SERVICE)["spec"]["clusterIP"]
    rule = ["--source", address, "--protocol", "tcp", "--match", "conntrack", "--ctorigdst", service, "--jump", "DROP"]
    # The apiserver may be on the node itself, or elsewhere.
    chains = ("INPUT", "FORWARD")
    for chain in chains:
        node.run(["iptables", "--wait", "--insert", chain, *rule])
    try:
        yield
    finally:
        for chain in chains:
            node.run(["iptables", "--wait", "--delete", chain, *rule])
