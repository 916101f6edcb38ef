"""Where the objects of the admission tests live."""

from typing import Final

NAMESPACE: Final = "e2e-admission"
"""Made for these tests and removed after them."""

SYSTEM_NAMESPACE: Final = "gpufleet-system"
"""Where the chart is installed."""

PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
SYSTEM_PODS: Final = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods"
TELEMETRY: Final = "/apis/gpufleet.dev/v1alpha1/gputelemetries"
WORKLOADS: Final = f"/apis/gpufleet.dev/v1alpha1/namespaces/{NAMESPACE}/gpuworkloads"
