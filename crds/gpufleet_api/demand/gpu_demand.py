"""GPUDemand: how much memory of shared devices the earlier runs of a template used.

The operator is the only writer. Only workloads with `placement.demand: Learned` are placed by it.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from gpufleet_api.base import ApiModel, Label, Name, ObjectMeta, Timestamp
from gpufleet_api.markers import EMPTY, Cel, ListAtomic
from gpufleet_api.names import MAX_DEMAND_RUNS
from gpufleet_api.telemetry.value_types import Count, MiB, PromisedMiB


class DemandOwner(ApiModel):
    """Owner of the pods of the template."""

    kind: Annotated[str, Field(min_length=1, max_length=63)]
    """Kind, such as GPUWorkload, Deployment or CronJob; Pod for pods without an owner."""
    name: Name
    """Name without the suffix that is added for each run, such as `train` for `train-x7k2p`."""


class DemandSpec(ApiModel):
    """The template: containers with these properties are runs of it."""

    rules: ClassVar = (Cel("self == oldSelf", "owner, container and image are immutable"),)

    owner: DemandOwner
    container: Label
    """Name of the container."""
    image: Annotated[str, Field(max_length=512)]
    """Image of the container without tag and digest."""


class RunState(StrEnum):
    """Whether a run counts."""

    OBSERVING = "Observing"
    """It has not been observed for long enough, and does not count yet."""
    RUNNING = "Running"
    ENDED = "Ended"


class DemandRun(ApiModel):
    """One pod, from the start of its containers to their end."""

    pod_uid: Annotated[str, Field(min_length=1, max_length=64)]
    """UID of the pod."""
    since: Timestamp
    """Time from which its memory was observed, by the node's clock."""
    state: RunState
    """Observing: the run started recently and does not count yet. Running, Ended: it counts."""
    promised_mib: PromisedMiB
    """Promised memory of each device, in MiB."""
    max_mib: MiB
    """Largest use of memory of one device, in MiB."""
    device_mib: MiB | None = None
    """Usable memory of its device, in MiB."""


class DemandStatus(ApiModel):
    """Use of the runs. Statistics cover the listed runs that count, and are absent without such a run."""

    observed_at: Timestamp
    """Time at which the operator wrote this status."""
    total_runs: Count = 0
    """Number of runs that have counted so far, including those that are no longer listed."""
    counted_runs: Annotated[int, Field(ge=0, le=MAX_DEMAND_RUNS)] = 0
    """Number of listed runs that count, which the statistics are about."""
    promised_mib: PromisedMiB | None = None
    """Promised memory of each device of the latest run, in MiB."""
    median_mib: MiB | None = None
    """Median of the runs' maxima, in MiB."""
    p80_mib: MiB | None = None
    """80th percentile of the runs' maxima, in MiB."""
    max_mib: MiB | None = None
    """Largest of the runs' maxima, in MiB."""
    recommended_mib: PromisedMiB | None = None
    """Recommended value of spec.devices.memoryMiB, in MiB: the largest maximum with a margin, but not more than the
    devices of the runs have."""
    runs: Annotated[list[DemandRun], Field(max_length=MAX_DEMAND_RUNS), ListAtomic()] = EMPTY
    """The latest runs, ordered by start."""


class GPUDemand(ApiModel):
    """Reports how much memory of shared devices the runs of one template used. Only the operator writes it."""

    metadata: ObjectMeta
    spec: DemandSpec
    status: DemandStatus | None = None
