"""Resources that paths name."""

import pytest

from gpufleet_operator.kube import paths


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        (paths.PODS, "pods"),
        (paths.pod("ml", "train-0"), "pods"),
        (paths.node("node-1"), "nodes"),
        (paths.WORKLOADS, "gpuworkloads.gpufleet.dev"),
        (paths.workload("ml", "train"), "gpuworkloads.gpufleet.dev"),
        (paths.NODE_LEASES, "leases.coordination.k8s.io"),
        ("/api/v1/namespaces/ml", "namespaces"),
    ],
)
def test_resource_of_a_path(path: str, resource: str) -> None:
    assert paths.resource(path) == resource
