"""Takes the apiserver away from one pod: everybody else still reaches it, and everybody still reaches the pod."""

from collections.abc import Iterator
from contextlib import contextmanager

from gpufleet_e2e.support.api import Api, JsonObject
from gpufleet_testbed import Node

SERVICE = "/api/v1/namespaces/default/services/kubernetes"


@contextmanager
def without_apiserver(api: Api, node: Node, pod: JsonObject) -> Iterator[None]:
    """What the pod sends to the apiserver gets lost, until the block ends; also when its containers are restarted.

    By where a connection was opened to: the kubelet's probes, and requests through the apiserver's proxy, are answered.

    Args:
        api: The cluster's.
        node: The pod's.
        pod: With an address.
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
