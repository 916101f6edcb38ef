"""Evidence from a cluster of the test bed."""

from gpufleet_e2e.proof.collector import EvidenceCollector
from gpufleet_e2e.proof.podresources import SOCKET
from gpufleet_testbed import Cluster


def collector_for(cluster: Cluster) -> EvidenceCollector:
    """A EvidenceCollector that reads this cluster as its administrator and asks the kubelets of all its nodes."""
    sockets = {node.name: node.kubelet_dir / SOCKET for node in cluster.nodes}
    return EvidenceCollector(kubeconfig=cluster.kubeconfig, sockets=sockets)
