"""API paths of the admission tests."""

from typing import Final

NAMESPACE: Final = "e2e-admission"
"""Exists only during these tests."""

SYSTEM_NAMESPACE: Final = "gpufleet-system"
"""The namespace of the chart."""

PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
SYSTEM_PODS: Final = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases"
NODE_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
TELEMETRY: Final = "/apis/gpufleet.dev/v1alpha1/gputelemetries"
WORKLOADS: Final = f"/apis/gpufleet.dev/v1alpha1/namespaces/{NAMESPACE}/gpuworkloads"
