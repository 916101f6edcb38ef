"""Independent evidence: which devices each source reports for a workload, and whether the sources agree.

The demo and the end-to-end tests read the cluster only through this package. It does not import the product, not even
its names: `contract.py` repeats them from the documentation, so that a mistake in the product is not repeated here. It
reads from the apiserver, exec included, and from each kubelet's PodResources socket.

Reading::

    with EvidenceCollector(kubeconfig=path, sockets={"node-1": path, ...}) as collector:
        workload = collector.evidence("default", "train")   # WorkloadEvidence: per replica, the devices of each source
        workload = collector.complete("default", "train", timeout_seconds=60)   # waits until every source has an answer
        fleet = collector.fleet()                           # FleetEvidence: all GPUs, all holdings of all kubelets
        found = collector.wait_for_workload("default", "train", confirmed, timeout_seconds=60)
        found = collector.wait_for_telemetry("node-1", lambda node: ..., timeout_seconds=60)

Comparing (pure)::

    problems = compare([workload], fleet)               # () when all sources agree, else one Disagreement each
    problems = compare_shards(workload)                 # the shards of a distribution tile 0..items exactly

`gpufleet_e2e.proof.testbed.collector_for(cluster)` makes the EvidenceCollector for a cluster of the test bed.
"""

from gpufleet_e2e.proof.collector import EvidenceCollector
from gpufleet_e2e.proof.compare import Disagreement, compare, compare_shards
from gpufleet_e2e.proof.errors import EvidenceError, WaitTimeoutError
from gpufleet_e2e.proof.evidence import (
    FleetEvidence,
    Gpu,
    Holding,
    ReplicaEvidence,
    ShardEvidence,
    Source,
    Statement,
    WorkloadEvidence,
)
from gpufleet_e2e.proof.podresources import list_pod_resources

__all__ = [
    "Disagreement",
    "EvidenceCollector",
    "EvidenceError",
    "FleetEvidence",
    "Gpu",
    "Holding",
    "ReplicaEvidence",
    "ShardEvidence",
    "Source",
    "Statement",
    "WaitTimeoutError",
    "WorkloadEvidence",
    "compare",
    "compare_shards",
    "list_pod_resources",
]
