"""Run policy, update strategy and network of a GPUWorkload."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from gpufleet_api.base import ApiModel, Seconds
from gpufleet_api.names import MAX_REPLICAS


class OnReplicaFailure(StrEnum):
    """What happens when a replica fails."""

    RESTART_REPLICA = "RestartReplica"
    """The pod of the replica is replaced."""
    RESTART_ALL = "RestartAll"
    """The pods of all replicas are replaced."""
    FAIL = "Fail"
    """The workload fails."""


class RunPolicy(ApiModel):
    """Rules for the end of the workload and for failed replicas."""

    backoff_limit: Annotated[int, Field(ge=0, le=2**31 - 1)] = 6
    """Number of failures of all replicas that are tolerated: the next one fails the workload. With OnFailure, container
    restarts count as well, and the workload fails when they reach the limit. Has no effect with Always. Evictions,
    preemptions, lost nodes and rejected pods do not count. Defaults to 6."""
    active_deadline_seconds: Seconds | None = None
    """Time in seconds from status.startTime after which the workload fails and its pods are deleted. There is no limit
    when the field is absent."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Time in seconds after which a complete or failed workload is deleted. It is kept when the field is absent."""
    on_replica_failure: OnReplicaFailure | None = None
    """What happens when a replica fails. RestartReplica: its pod is replaced. RestartAll: the pods of all replicas are
    replaced. Fail: the workload fails. Defaults to RestartAll when placement.gang is true, and to RestartReplica
    otherwise."""


class UpdateStrategyType(StrEnum):
    """When the pods of an older template are replaced."""

    ROLLING_UPDATE = "RollingUpdate"
    """By the operator, at most maxUnavailable at a time."""
    ON_DELETE = "OnDelete"
    """When a user deletes them."""


class UpdateStrategy(ApiModel):
    """Strategy for replacing pods when spec.template changes. A replica keeps its devices."""

    type: UpdateStrategyType = UpdateStrategyType.ROLLING_UPDATE
    """RollingUpdate: the operator replaces the pods. OnDelete: a pod gets the new template after a user has deleted it.
    Defaults to RollingUpdate."""
    max_unavailable: (
        Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
        | Annotated[str, Field(max_length=4, pattern=r"^(100|[1-9][0-9]?)%$")]
    ) = 1
    """Number of replicas, or percentage of spec.replicas rounded up, that may be unavailable during an update, such as
    1 or 25%. Defaults to 1."""


class Network(ApiModel):
    """DNS names of the pods."""

    enable_dns_hostnames: bool = True
    """When true, a headless Service with the name of the workload gives each pod the DNS name
    <workload>-<replica>.<workload>.<namespace>.svc; a name that is not a DNS-1035 label gets a hash.
    GPUFLEET_LEADER_ADDRESS has the name of replica 0. Defaults to true."""
