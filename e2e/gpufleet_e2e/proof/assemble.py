"""Builds evidence from the raw readings of one workload. Pure: the readings are arguments."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpufleet_e2e.proof import contract, objects
from gpufleet_e2e.proof.claims import ClaimEvidence
from gpufleet_e2e.proof.evidence import (
    FleetEvidence,
    Holding,
    ReplicaEvidence,
    Shard,
    ShardEvidence,
    Source,
    Statement,
    WorkloadEvidence,
)
from gpufleet_e2e.proof.objects import JsonObject

TERMINAL = {"Succeeded", "Failed"}
SHARD_LINE = re.compile(r"shard\D*(\d+)\D+(\d+)", re.IGNORECASE)
"""A container's line about its shard: the word, then start and end."""


@dataclass(frozen=True, slots=True)
class ContainerReading:
    """The environment and the log of one container."""

    variables: Mapping[str, str] | None
    problem: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings of one workload. `containers` is keyed by pod name."""

    workload: JsonObject
    pods: Sequence[JsonObject]
    telemetry: Sequence[JsonObject]
    holdings: Sequence[Holding]
    containers: Mapping[str, ContainerReading] = field(default_factory=dict)
    resource: str = contract.RESOURCE
    shared_resource: str = contract.SHARED_RESOURCE

    claims: ClaimEvidence | None = None
    """None: no pod of the workload has a claim."""
    pod_status: bool = True
    """Whether kubelets write allocatedResourcesStatus."""

    def requested_resource(self, pod: Mapping[str, Any]) -> str:
        """Returns the extended resource that a pod's containers request, or the driver of its claim."""
        if pod["spec"].get("resourceClaims"):
            return contract.DRIVER
        shared = self.workload["spec"].get("devices", {}).get("mode") == "Shared"
        return self.shared_resource if shared else self.resource


def container_of(workload: JsonObject, pod: JsonObject) -> str:
    """Returns the container that gets the devices: the one that the spec names, else the first of template or pod."""
    spec = workload["spec"]
    named = spec.get("devices", {}).get("container")
    return str(named or spec.get("template", pod)["spec"]["containers"][0]["name"])


def live_pods(pods: Sequence[JsonObject]) -> list[JsonObject]:
    """Selects pods that are neither completed nor being deleted."""
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") not in TERMINAL
    ]


def fleet(telemetry: Sequence[JsonObject], holdings: Sequence[Holding]) -> FleetEvidence:
    """Builds the evidence on all devices, by node and index, and all holdings."""
    nodes = sorted(telemetry, key=lambda node: str(node["metadata"]["name"]))
    return FleetEvidence(tuple(gpu for node in nodes for gpu in objects.gpus(node)), tuple(holdings))


def workload(readings: Readings) -> WorkloadEvidence:
    """Builds the evidence on one workload, replicas in order."""
    found, spec = readings.workload, readings.workload["spec"]
    status = found.get("status", {})
    placements = sorted(status.get("placements", []), key=lambda placement: int(placement["replica"]))
    named = {placement.get("pod") for placement in placements}
    strays = tuple(
        sorted(pod["metadata"]["name"] for pod in live_pods(readings.pods) if pod["metadata"]["name"] not in named)
    )
    return WorkloadEvidence(
        namespace=found["metadata"]["namespace"],
        name=found["metadata"]["name"],
        replicas_wanted=len(live_pods(readings.pods)) if _is_open_ended(spec) else spec.get("replicas", 1),
        devices_per_replica=spec.get("devices", {}).get("count", 1),
        replicas=tuple(_replica(readings, placement) for placement in placements),
        items=spec.get("distribution", {}).get("items"),
        unassigned_items=status.get("unassignedItems", 0),
        memory_mib=spec.get("devices", {}).get("memoryMiB"),
        reclaims=_shares_its_promise(spec.get("placement", {})),
        open_ended=_is_open_ended(spec),
        stray_pods=strays,
    )


def _shares_its_promise(placement: JsonObject) -> bool:
    return placement.get("reclaim") == "Used" or placement.get("demand") == "Learned"


def _is_open_ended(spec: JsonObject) -> bool:
    """Returns whether the owners of the pods decide how many there are."""
    return "template" not in spec and not spec.get("placement", {}).get("gang")


def _replica(readings: Readings, placement: JsonObject) -> ReplicaEvidence:
    name, uid = placement.get("pod", ""), placement.get("podUID", "")
    pod = next((pod for pod in readings.pods if pod["metadata"]["name"] == name), None)
    container = container_of(readings.workload, pod or {"spec": {"containers": [{"name": ""}]}})
    reading = readings.containers.get(name, ContainerReading(None, "not read"))
    says = {Source.STATUS: objects.statement(placement.get("devices", []))}
    if pod is None:
        gone = Statement(None, f"pod {name or 'of this replica'} does not exist")
        says |= {source: gone for source in Source if source not in (Source.STATUS, Source.CLAIM)}
    else:
        says |= {
            Source.RESERVATION: objects.reservation(readings.telemetry, pod["metadata"]["uid"]),
            Source.ANNOTATION: objects.annotation(pod),
            Source.ENVIRONMENT: _visible(reading),
            Source.POD_RESOURCES: _held(readings, pod, container),
        }
        if readings.pod_status:
            says[Source.POD_STATUS] = objects.pod_status(pod, container, readings.requested_resource(pod))
        claimed = readings.claims.of_pod(pod) if readings.claims is not None else None
        if claimed is not None:
            says[Source.CLAIM] = claimed
    if pod is not None and uid != pod["metadata"]["uid"]:
        says[Source.STATUS] = Statement(None, f"names pod uid {uid or '(none)'}, the pod's is {pod['metadata']['uid']}")
    line, shard = _log_shard(reading.log)
    return ReplicaEvidence(
        replica=placement["replica"],
        state=placement.get("state", ""),
        pod=name,
        pod_uid=uid,
        node=pod["spec"].get("nodeName", "") if pod else "",
        container=container,
        says=says,
        shard=ShardEvidence(
            status=objects.shard_of_status(placement),
            environment=objects.shard_of_environment(reading.variables or {}),
            log=shard,
            log_line=line,
        ),
        promised_mib={
            Source.RESERVATION: objects.promised_by_reservation(readings.telemetry, uid),
            Source.ENVIRONMENT: objects.promised_by_environment(reading.variables or {}),
        },
        score=dict(placement.get("score", {})),
    )


def _visible(reading: ContainerReading) -> Statement:
    if reading.variables is None:
        return Statement(None, reading.problem)
    return objects.visible_devices(reading.variables)


def _held(readings: Readings, pod: Mapping[str, Any], container: str) -> Statement:
    key = (pod["metadata"]["namespace"], pod["metadata"]["name"], container, readings.requested_resource(pod))
    for holding in readings.holdings:
        if (holding.namespace, holding.pod, holding.container, holding.resource) == key:
            return objects.statement([objects.device_of(one) for one in holding.devices])
    return Statement(None, "the kubelet lists no device for the container")


def _log_shard(log: str) -> tuple[str, Shard | None]:
    for line in log.splitlines():
        if match := SHARD_LINE.search(line):
            return line.strip(), (int(match[1]), int(match[2]))
    return "", None
