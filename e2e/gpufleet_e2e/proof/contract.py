"""Names of gpufleet's API, copied from the documentation and not imported from the product."""

from typing import Final

GROUP: Final = "gpufleet.dev"
VERSION: Final = "v1alpha1"
WORKLOADS: Final = "gpuworkloads"
TELEMETRY: Final = "gputelemetries"
RESOURCE: Final = "gpufleet.dev/gpu"
SHARED_RESOURCE: Final = "gpufleet.dev/gpu-shared"
ANNOTATION: Final = "gpufleet.dev/assignment"
WORKLOAD_LABEL: Final = "gpufleet.dev/workload"
REPLICA_LABEL: Final = "gpufleet.dev/replica"
VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
MEMORY_MIB: Final = "GPUFLEET_MEMORY_MIB"
SHARD_START: Final = "GPUFLEET_SHARD_START"
SHARD_END: Final = "GPUFLEET_SHARD_END"
