"""Workloads and AdmissionChecks of Kueue, reduced to the fields that decisions need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gpufleet_operator.model.actions import WorkloadName


class CheckState(StrEnum):
    """State of an AdmissionCheck for one Workload of Kueue."""

    PENDING = "Pending"
    READY = "Ready"
    RETRY = "Retry"
    REJECTED = "Rejected"


@dataclass(frozen=True, slots=True)
class CheckStatus:
    """An entry of `status.admissionChecks`."""

    state: CheckState
    retries: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class KueueWorkload:
    """A Workload of Kueue: a pod, a group of pods, or an object that it suspends."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    pods: tuple[str, ...] = ()
    """UIDs of the pods that it consists of; empty for kinds that Kueue suspends, such as Job."""
    reserved_since: datetime | None = None
    """Time since which quota is reserved for it; None: no quota is reserved, or it has ended or is evicted."""
    checks: Mapping[str, CheckStatus] = field(default_factory=dict)
    """By the name of the AdmissionCheck."""
    paused: bool = False
    """It has no quota, and Kueue has stored when it retries, or already retries."""


@dataclass(frozen=True, slots=True)
class AdmissionCheck:
    """An AdmissionCheck."""

    uid: str
    name: str
    resource_version: str
    controller: str
    active: bool = False
    """Its condition Active is True; before that, Kueue admits no Workload of its queues."""


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """The state that the operator gives its checks of one Workload.

    All of them together: an apply that leaves out a check would remove what an earlier one has set.
    """

    workload: KueueWorkload
    checks: tuple[str, ...]
    state: CheckState
    message: str
    requeue_after_seconds: int | None = None
    retries: int | None = None
    """Number of Retry answers; None: not stored."""
    waiting: WorkloadName | None = None
    """The GPUWorkload whose quota is returned; None: no quota is returned."""
