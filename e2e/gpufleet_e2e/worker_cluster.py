"""Configures the cluster of each pytest-xdist worker."""

from gpufleet_testbed import ClusterConfig

_FIRST_NETWORK = 246


def worker_config(worker: int, nodes: int) -> ClusterConfig:
    """Returns the configuration of a worker's own cluster: workers cannot share GPUs, operators and agents.

    Args:
        worker: Number of the worker, from 0.
        nodes: Number of nodes.
    """
    name = "e2e" if worker == 0 else f"e2e-{worker + 1}"
    network = f"10.{_FIRST_NETWORK + worker}.0.0/16"
    return ClusterConfig.from_environment(name=name, network=network, nodes=nodes)
