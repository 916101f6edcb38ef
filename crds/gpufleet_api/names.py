"""Every name that agent, operator, chart and command line must agree on.

Free of pydantic on purpose: the agent runs on each GPU node and imports only this module of the API.
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

SCHEDULING_GATE: Final = f"{GROUP}/assignment"
"""The gate that holds a pod until its devices are reserved."""

ASSIGNMENT_ANNOTATION: Final = f"{GROUP}/assignment"
"""Informational copy of the reservation on the pod, for people. Nothing obeys it."""

ACKNOWLEDGED_FAULTS_ANNOTATION: Final = f"{GROUP}/acknowledged-faults"
"""On a GPUTelemetry: until when faults of its devices are forgiven. Written by people, obeyed by the agent."""

WORKLOAD_LABEL: Final = f"{GROUP}/workload"
"""On each pod of a workload: the workload's name. The operator watches pods by its presence."""

REPLICA_LABEL: Final = f"{GROUP}/replica"
"""On each pod of a workload: the replica index."""

RESOURCE: Final = f"{GROUP}/gpu"
"""Default extended resource: one whole device. Configurable in agent and operator."""

SHARED_RESOURCE: Final = f"{GROUP}/gpu-shared"
"""Default extended resource of shared use: one slot of one device. Configurable likewise; empty: no sharing."""

SHARED_SLOTS: Final = 16
"""Default number of slots of one device: how many containers may share it."""

MAX_SHARED_SLOTS: Final = 64
"""Most slots of one device: as many holders as its entry in GPUTelemetry can list."""

STALE_AFTER_SECONDS: Final = 90.0
"""Default age from which on telemetry is stale: nothing is placed by it."""

CDI_KIND: Final = f"{GROUP}/gpu"
"""Vendor and class of our devices to container runtimes, whatever the resource is called."""

RESOURCE_PREFIX: Final = f"{GROUP}/"

ENV_VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
ENV_PREFIX: Final = "GPUFLEET_"
ENV_REPLICA: Final = "GPUFLEET_REPLICA"
ENV_REPLICAS: Final = "GPUFLEET_REPLICAS"
ENV_SHARD_START: Final = "GPUFLEET_SHARD_START"
ENV_SHARD_END: Final = "GPUFLEET_SHARD_END"
ENV_DEVICES: Final = "GPUFLEET_DEVICES"
ENV_MEMORY_MIB: Final = "GPUFLEET_MEMORY_MIB"
"""Shared use: what is promised of each device's memory."""
ENV_COMPUTE_PERCENT: Final = "GPUFLEET_COMPUTE_PERCENT"

AGENT_FIELD_MANAGER: Final = "gpufleet-agent"
OPERATOR_FIELD_MANAGER: Final = "gpufleet-operator"

ASSIGN_VERB: Final = "assign"
"""Custom verb on gputelemetries: who holds it may write reservations and release gated pods."""


class ThrottleReason(StrEnum):
    """Why a device runs below the clocks that it could reach."""

    # That it has nothing to do is no such reason.
    APPLICATION_CLOCKS = "ApplicationsClocksSetting"
    SW_POWER_CAP = "SwPowerCap"
    HW_SLOWDOWN = "HwSlowdown"
    SYNC_BOOST = "SyncBoost"
    SW_THERMAL_SLOWDOWN = "SwThermalSlowdown"
    HW_THERMAL_SLOWDOWN = "HwThermalSlowdown"
    HW_POWER_BRAKE_SLOWDOWN = "HwPowerBrakeSlowdown"
    DISPLAY_CLOCKS = "DisplayClockSetting"


class TelemetryState(StrEnum):
    """Whether a node's telemetry can be used."""

    READY = "Ready"
    STALE = "Stale"
    NO_DRIVER = "NoDriver"
