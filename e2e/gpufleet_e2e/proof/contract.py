"""Names of gpufleet's API, copied from the documentation and not imported from the product."""

from typing import Final

GROUP: Final = "gpufleet.dev"
VERSION: Final = "v1alpha1"
WORKLOADS: Final = "gpuworkloads"
TELEMETRY: Final = "gputelemetries"
RESOURCE: Final = "gpufleet.dev/gpu"
SHARED_RESOURCE: Final = "gpufleet.dev/gpu-shared"
DRA: Final = ("resource.k8s.io", "v1")
DRIVER: Final = "gpu.gpufleet.dev"
"""Of dynamic resource allocation."""
POD_CLAIM: Final = "gpufleet"
"""Name of a pod's claim in its spec."""
POD_STATUS_SINCE: Final = (1, 36)
"""The version of Kubernetes from which on kubelets write allocatedResourcesStatus by default."""
ANNOTATION: Final = "gpufleet.dev/assignment"
WORKLOAD_LABEL: Final = "gpufleet.dev/workload"
REPLICA_LABEL: Final = "gpufleet.dev/replica"
VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
MEMORY_MIB: Final = "GPUFLEET_MEMORY_MIB"
SHARD_START: Final = "GPUFLEET_SHARD_START"
SHARD_END: Final = "GPUFLEET_SHARD_END"
