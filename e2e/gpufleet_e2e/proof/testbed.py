"""Evidence from a cluster of the test bed."""

from gpufleet_e2e.proof.collector import EvidenceCollector
from gpufleet_e2e.proof.errors import EvidenceError
from gpufleet_e2e.proof.podresources import SOCKET
from gpufleet_testbed import Cluster, ClusterError

KUBECTL_SECONDS = 30


def collector_for(cluster: Cluster) -> EvidenceCollector:
    """A EvidenceCollector that reads this cluster as its administrator and asks the kubelets of all its nodes."""

    def kubectl(*arguments: str) -> str:
        try:
            return cluster.kubectl(*arguments, timeout=KUBECTL_SECONDS).stdout
        except (ClusterError, TimeoutError) as error:
            raise EvidenceError(str(error)) from error

    sockets = {node.name: node.kubelet_dir / SOCKET for node in cluster.nodes}
    return EvidenceCollector(kubeconfig=cluster.kubeconfig, kubectl=kubectl, sockets=sockets)
