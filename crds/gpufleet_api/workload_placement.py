"""`spec.placement` of a GPUWorkload: how devices and nodes are chosen."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from gpufleet_api.base import ApiModel, Seconds
from gpufleet_api.markers import Cel


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
    on_degraded: OnDegraded = OnDegraded.IGNORE
    """What happens when a device of a running replica becomes Unhealthy. Ignore: the condition Degraded becomes True
    and the pod keeps running. Replace: the pod is also deleted after some seconds and placed again on healthy devices.
    Defaults to Ignore."""
