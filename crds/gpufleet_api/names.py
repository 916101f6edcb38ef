"""Names and limits that agent, operator, chart and command line share.

Does not import pydantic: the agent, which runs on every GPU node, imports only this module of the API.
"""

from enum import StrEnum
from typing import Final

GROUP: Final = "gpufleet.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

TELEMETRY_KIND: Final = "GPUTelemetry"
TELEMETRY_PLURAL: Final = "gputelemetries"
WORKLOAD_KIND: Final = "GPUWorkload"
WORKLOAD_PLURAL: Final = "gpuworkloads"
DEMAND_KIND: Final = "GPUDemand"
DEMAND_PLURAL: Final = "gpudemands"

SCHEDULING_GATE: Final = f"{GROUP}/assignment"
"""Scheduling gate of a pod until its devices are reserved."""

ASSIGNMENT_ANNOTATION: Final = f"{GROUP}/assignment"
"""On a pod: a copy of its reservation, for information only."""

WAITING_FOR_ANNOTATION: Final = f"{GROUP}/waiting-for"
"""On a gated pod: what it waits for, as one CamelCase word, for tools."""

REPLACED_ANNOTATION: Final = f"{GROUP}/replaced"
"""On a pod of a Job that is about to be deleted because it cannot start: why. Its Job does not count it."""

ACKNOWLEDGED_FAULTS_ANNOTATION: Final = f"{GROUP}/acknowledged-faults"
"""On a GPUTelemetry: times until which an administrator has acknowledged faults of its devices."""

WORKLOAD_LABEL: Final = f"{GROUP}/workload"
"""On a pod of a workload: the workload's name. The operator watches the pods that have this label."""

REPLICA_LABEL: Final = f"{GROUP}/replica"
"""On a pod of a workload: the index of its replica."""

ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
"""On a pod of a workload: number of the attempt, from 0."""

TEMPLATE_HASH_LABEL: Final = f"{GROUP}/template-hash"
"""On a pod of a workload: hash of what the pod was built from."""

POD_INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"
"""On a pod of a workload: the index of its replica, under the name that a StatefulSet gives it."""

APP_NAME_LABEL: Final = "app.kubernetes.io/name"
APP_INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
APP_MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"

RESOURCE: Final = f"{GROUP}/gpu"
"""Default extended resource for whole devices. Configurable in agent and operator."""

SHARED_RESOURCE: Final = f"{GROUP}/gpu-shared"
"""Default extended resource for share slots of a device. Configurable likewise; empty turns sharing off."""

NOT_MOVED: Final = "not moved from full devices"
"""Begin of the explanation in the message of Placed."""

SHARED_SLOTS: Final = 16
"""Default number of share slots of a device: how many containers can share it."""

MAX_SHARED_SLOTS: Final = 64
"""Maximum number of share slots of a device: as many holders as its entry in GPUTelemetry can list."""

MAX_DEVICES: Final = 64
"""Maximum number of devices of a node."""

MAX_ASSIGNMENTS: Final = 1024
"""Maximum number of reservations on a node."""

MAX_REPLICAS: Final = 1024
"""Maximum number of replicas of a workload."""

MAX_DEVICES_PER_REPLICA: Final = 16
"""Maximum number of devices of a replica."""

MAX_DEMAND_RUNS: Final = 32
"""Maximum number of runs that a GPUDemand lists."""

WHOLE_DEVICE_PERCENT: Final = 100
"""Compute of a whole device, in percent."""

STALE_AFTER_SECONDS: Final = 90.0
"""Default age after which telemetry is stale and no longer used for placement."""

REPORT_SECONDS: Final = 300.0
"""Default maximum time between two reports of an agent, which renews its Lease in between if nothing has changed."""

CDI_KIND: Final = f"{GROUP}/gpu"
"""Vendor and class of the devices in CDI, independent of the extended resource."""

DRA_DRIVER: Final = f"gpu.{GROUP}"
"""Name of the DRA driver, of its DeviceClass, and of the resource in reservations of nodes with transport DRA."""

POD_CLAIM: Final = "gpufleet"
"""Name in `spec.resourceClaims` of a pod under which its containers refer to the claim with its devices."""

CLAIM_PREFIX: Final = "gpufleet-"
"""Of the names of the operator's ResourceClaims, which a policy keeps other pods from, and of the templates that pods
of other owners refer to.
"""

MANAGED_TAINT: Final = f"{GROUP}/managed"
"""Key of a taint on every device of the driver, which only claims of the operator tolerate."""

FAULT_TAINT: Final = f"{GROUP}/unhealthy"
"""Key of a taint on a device with a fault; its value is the fault's code."""

RESOURCE_PREFIX: Final = f"{GROUP}/"

ENV_VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
ENV_PREFIX: Final = "GPUFLEET_"
ENV_REPLICA: Final = "GPUFLEET_REPLICA"
ENV_REPLICAS: Final = "GPUFLEET_REPLICAS"
ENV_ATTEMPT: Final = "GPUFLEET_ATTEMPT"
"""Number of the attempt, from 0."""
ENV_LEADER_ADDRESS: Final = "GPUFLEET_LEADER_ADDRESS"
"""DNS name of replica 0. Set when network.enableDNSHostnames is true."""
ENV_SHARD_START: Final = "GPUFLEET_SHARD_START"
ENV_SHARD_END: Final = "GPUFLEET_SHARD_END"
ENV_DEVICES: Final = "GPUFLEET_DEVICES"
ENV_MEMORY_MIB: Final = "GPUFLEET_MEMORY_MIB"
"""Shared devices only: memory of each device that is promised to the container."""
ENV_COMPUTE_PERCENT: Final = "GPUFLEET_COMPUTE_PERCENT"

AGENT_FIELD_MANAGER: Final = "gpufleet-agent"
OPERATOR_FIELD_MANAGER: Final = "gpufleet-operator"
OPERATOR_LEASE: Final = "gpufleet-operator"
"""Lease of the replica that decides, in the namespace of the operator."""

AGENT_LEASE_PREFIX: Final = "gpufleet-agent."
"""Of the name of an agent's Lease, before the name of its node. The Lease is in the namespace of the agents."""

LEASE_LABEL: Final = f"{GROUP}/lease"
"""On a Lease: what it is for."""

AGENT_LEASE: Final = "agent"
"""Value of `LEASE_LABEL` on the Lease of an agent."""

OBSERVED_AT_ANNOTATION: Final = f"{GROUP}/observed-at"
"""On the Lease of an agent: `status.observedAt` of the report that its renewals confirm."""

READS_DENIED: Final = "ReadsDenied"
"""Reason of the operator's event about a read that the apiserver denies."""

ASSIGN_VERB: Final = "assign"
"""Custom verb on gputelemetries that allows writing reservations and releasing gated pods."""

CORDON_VERB: Final = "cordon"
"""Custom verb on gputelemetries that allows taking devices out of service."""

NODE_CONDITION: Final = "GPUHealthy"
"""Type of the condition that the operator writes to Nodes with GPUs."""


class ThrottleReason(StrEnum):
    """Why a device runs below its clocks. Idleness is not a throttle reason."""

    APPLICATION_CLOCKS = "ApplicationsClocksSetting"
    SW_POWER_CAP = "SwPowerCap"
    HW_SLOWDOWN = "HwSlowdown"
    SYNC_BOOST = "SyncBoost"
    SW_THERMAL_SLOWDOWN = "SwThermalSlowdown"
    HW_THERMAL_SLOWDOWN = "HwThermalSlowdown"
    HW_POWER_BRAKE_SLOWDOWN = "HwPowerBrakeSlowdown"
    DISPLAY_CLOCKS = "DisplayClockSetting"


class MemoryModel(StrEnum):
    """How a device shares its memory with the node."""

    UNIFIED = "Unified"
    """Device and CPU use the same memory."""
    NUMA = "NUMA"
    """The operating system manages the device's memory as a NUMA node."""


class TelemetryState(StrEnum):
    """Whether a node's telemetry can be used."""

    READY = "Ready"
    STALE = "Stale"
    NO_DRIVER = "NoDriver"


FORBIDDEN_RESOURCES = ("nvidia.com/*", "amd.com/gpu", "gpu.intel.com/*")
"""Resources of other device plugins. Their devices have no reservation, and two plugins may serve the same device."""
SCHEDULERS = ("default-scheduler",)
"""Schedulers that every cluster has."""
TOLERATED_TAINTS = ("nvidia.com/gpu",)
"""Keys of taints that are usual on nodes with GPUs."""


class Reclaim(StrEnum):
    """Whether other workloads may get the memory that a replica was promised and does not use."""

    NEVER = "Never"
    """The promise is kept free for the replica."""
    USED = "Used"
    """A replica that was observed for ten minutes counts with the most memory that it used in the last ten."""


class Transport(StrEnum):
    """How the devices of a node get into containers."""

    DEVICE_PLUGIN = "DevicePlugin"
    """By extended resources, through the kubelet's device plugin API."""
    DRA = "DRA"
    """By ResourceClaims, through a driver of dynamic resource allocation."""
