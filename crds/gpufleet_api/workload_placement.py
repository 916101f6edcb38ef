"""`spec.placement` of a GPUWorkload: how devices and nodes are chosen."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from gpufleet_api.base import ApiModel, Seconds
from gpufleet_api.markers import Cel
from gpufleet_api.names import Reclaim


class Strategy(StrEnum):
    """How devices are chosen among those that meet the requirements."""

    BEST = "Best"
    """The devices with the highest score by live telemetry."""
    PACK = "Pack"
    """The devices whose use leaves the most room for the requests that the operator has seen."""
    SPREAD = "Spread"
    """As few replicas per node as possible, on the best devices of each node."""


class Topology(StrEnum):
    """How the devices of one replica, or the nodes of all replicas, must be related."""

    NONE = "None"
    SAME_NODE = "SameNode"
    """All replicas on one node."""
    NVLINK = "NVLink"
    """The devices of one replica are all connected by NVLink."""
    NUMA = "NUMA"
    """The devices of one replica are attached to one NUMA node."""


Weight = Annotated[int, Field(ge=0, le=100)]


class Weights(ApiModel):
    """Weights of the terms of a device's score, 0 to 100 each. Only their ratio matters."""

    rules: ClassVar = (
        Cel(
            "self.memory + self.utilization + self.temperature + self.power > 0",
            "at least one of memory, utilization, temperature and power must be greater than 0",
        ),
    )

    memory: Weight = 40
    """Weight of free memory. Defaults to 40."""
    utilization: Weight = 30
    """Weight of low compute utilization. Defaults to 30."""
    temperature: Weight = 20
    """Weight of low temperature. Defaults to 20."""
    power: Weight = 10
    """Weight of power headroom. Defaults to 10."""


class OnDegraded(StrEnum):
    """What happens to a running replica when one of its devices becomes unhealthy."""

    IGNORE = "Ignore"
    """The condition Degraded becomes True."""
    REPLACE = "Replace"
    """The condition Degraded becomes True, and the pod is deleted and placed again on healthy devices."""


class OnPressure(StrEnum):
    """What happens to a replica when its shared device runs out of memory."""

    IGNORE = "Ignore"
    MOVE = "Move"
    """It is evicted and placed on another device, if it uses more than promised or shares its promise."""


class DemandSource(StrEnum):
    """Memory of a shared device with which a replica is placed."""

    PROMISED = "Promised"
    LEARNED = "Learned"
    """What earlier runs of its template used, once enough of them are known."""


class Placement(ApiModel):
    """How the replicas are placed."""

    strategy: Strategy = Strategy.BEST
    """Best: the devices with the highest score by live telemetry. Pack: the devices whose use leaves the most room for
    the requests that the operator has seen. Spread: as few replicas per node as possible, on the best devices of each
    node. Defaults to Best."""
    topology: Topology = Topology.NONE
    """None: no constraint. SameNode: all replicas on one node. NVLink: the devices of one replica are all connected by
    NVLink. NUMA: the devices of one replica are attached to one NUMA node. Defaults to None."""
    weights: Weights = Weights()
    gang: bool = False
    """When true, either all replicas are placed or none is. Defaults to false."""
    gang_timeout_seconds: Seconds = 600
    """Time in seconds after which a gang that has run and has lost replicas releases its devices, if it is still
    incomplete. Defaults to 600."""
    scale_up: bool = False
    """When true, and the operator runs with --scale-up, placeholder pods exist while the workload waits only for
    devices, so that cluster-autoscaler and Karpenter add nodes. Defaults to false."""
    min_runtime_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Time in seconds after the start of its containers in which a pod is not evicted for a workload of higher
    priority. Defaults to 0."""
    on_degraded: OnDegraded = OnDegraded.IGNORE
    """What happens when a device of a running replica becomes Unhealthy. Ignore: the condition Degraded becomes True
    and the pod keeps running. Replace: the pod is also deleted after some seconds and placed again on healthy devices.
    Defaults to Ignore."""
    on_pressure: OnPressure = OnPressure.IGNORE
    """What happens when the shared device of a running replica runs out of memory. Ignore: nothing. Move: a replica
    that uses more memory than promised, or whose reclaim is Used, is evicted, subject to PodDisruptionBudgets, once
    another device is reserved for its next pod; gangs of several replicas and pods of other owners are not, and the
    condition Placed names the reason. Defaults to Ignore."""
    demand: DemandSource = DemandSource.PROMISED
    """Memory of a shared device with which a replica is placed. Promised: devices.memoryMiB. Learned: what earlier runs
    used, by the GPUDemand of the template, from two runs on; the promise does not change, so the device may run out
    of memory when the replica uses all of it. A change applies to pods that are placed afterwards. Defaults to
    Promised."""
    reclaim: Reclaim | None = None
    """Whether other workloads may get memory of a shared device that a replica was promised and does not use. Never:
    no. Used: yes; ten minutes after its start, a replica counts with the most memory that it used in the last ten
    minutes, so that the device may run out of memory when the replica uses its promise later. A change applies to pods
    that are placed afterwards. Absent: the operator's default, which is Never unless it was set otherwise."""
