"""Converts API objects in JSON to evidence. Pure: no client, so that tests use plain dicts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpufleet_e2e.proof import contract
from gpufleet_e2e.proof.evidence import Gpu, Shard, Statement

JsonObject = Mapping[str, Any]


def statement(devices: Sequence[str]) -> Statement:
    """Builds a statement; order does not matter, and a device named twice stays twice."""
    return Statement(tuple(sorted(devices)))


def device_of(device_id: str) -> str:
    """Returns the UUID of a kubelet's device ID; share slots are `<uuid>::<number>`."""
    return device_id.partition("::")[0]


def gpus(telemetry: JsonObject) -> tuple[Gpu, ...]:
    """Returns the devices of one GPUTelemetry, by index."""
    devices = telemetry.get("status", {}).get("devices", [])
    return tuple(
        Gpu(
            node=telemetry["metadata"]["name"],
            index=device["index"],
            uuid=device["uuid"],
            model=device["model"],
            healthy=device["health"]["state"] == "Healthy",
            memory_total_mib=device.get("memoryTotalMiB"),
            memory_used_mib=device.get("memoryUsedMiB"),
            memory_reserved_mib=device.get("memoryReservedMiB"),
            utilization_percent=device.get("utilizationPercent"),
            temperature_celsius=device.get("temperatureCelsius"),
            power_milliwatts=device.get("powerMilliwatts"),
        )
        for device in sorted(devices, key=lambda device: int(device["index"]))
    )


def reservation(telemetry: Sequence[JsonObject], pod_uid: str) -> Statement:
    """Returns the devices that GPUTelemetry objects reserve for one pod."""
    found = [
        uuid
        for node in telemetry
        for assignment in node.get("spec", {}).get("assignments", [])
        if assignment["podUID"] == pod_uid
        for uuid in assignment["devices"]
    ]
    return statement(found) if found else Statement(None, "no assignment for this pod's UID")


def annotation(pod: JsonObject) -> Statement:
    """Returns the devices of the pod's annotation, a JSON object with a list `devices`."""
    text = pod["metadata"].get("annotations", {}).get(contract.ANNOTATION)
    if text is None:
        return Statement(None, f"no annotation {contract.ANNOTATION}")
    try:
        devices = json.loads(text)["devices"]
    except (ValueError, KeyError, TypeError):
        return Statement(None, f"annotation is not a JSON object with devices: {text[:80]}")
    return statement(devices)


def pod_status(pod: JsonObject, container: str, resource: str = contract.RESOURCE) -> Statement:
    """Returns the devices in the pod's status for one container."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        if status["name"] == container:
            entries = status.get("allocatedResourcesStatus", [])
            for entry in entries if resource != contract.DRIVER else ():
                if entry["name"] == resource:
                    return statement([device_of(item["resourceID"]) for item in entry.get("resources", [])])
            claimed = [one for one in entries if one["name"].startswith(f"claim:{contract.POD_CLAIM}")]
            if resource == contract.DRIVER and claimed:
                # The ID in CDI ends with the UUID, after the claim's uid and a number.
                ids = (item["resourceID"].partition("=")[2] for one in claimed for item in one.get("resources", []))
                return statement([name.split("-", 6)[-1] for name in ids])
    return Statement(None, "no allocatedResourcesStatus for the container")


def promised_by_reservation(telemetry: Sequence[JsonObject], pod_uid: str) -> int | None:
    """Returns the MiB of each device that GPUTelemetry objects promise to one pod; None means whole devices."""
    assignments = (one for node in telemetry for one in node.get("spec", {}).get("assignments", []))
    return next((one.get("memoryMiB") for one in assignments if one["podUID"] == pod_uid), None)


def promised_by_environment(variables: Mapping[str, str]) -> int | None:
    """Returns the MiB of each device in a container's environment; None when missing or not a number."""
    value = variables.get(contract.MEMORY_MIB, "")
    return int(value) if value.isdecimal() else None


def environment(raw: str) -> dict[str, str]:
    """Parses the variables of a `/proc/<pid>/environ`."""
    pairs = (entry.partition("=") for entry in raw.split("\0") if entry)
    return {name: value for name, _, value in pairs}


def visible_devices(variables: Mapping[str, str]) -> Statement:
    """Returns the devices in a container's NVIDIA_VISIBLE_DEVICES."""
    value = variables.get(contract.VISIBLE_DEVICES)
    if value is None:
        return Statement(None, f"{contract.VISIBLE_DEVICES} is not set")
    return statement([uuid for uuid in value.split(",") if uuid])


def shard_of_environment(variables: Mapping[str, str]) -> Shard | None:
    """Returns the shard in a container's environment."""
    try:
        return int(variables[contract.SHARD_START]), int(variables[contract.SHARD_END])
    except (KeyError, ValueError):
        return None


def shard_of_status(placement: JsonObject) -> Shard | None:
    """Returns the shard of a placement in the status."""
    if "shardStart" not in placement or "shardEnd" not in placement:
        return None
    return int(placement["shardStart"]), int(placement["shardEnd"])


def condition(workload: JsonObject, kind: str) -> JsonObject:
    """Returns the workload's condition of this type; empty when missing or of an older generation."""
    generation = workload["metadata"].get("generation")
    for found in workload.get("status", {}).get("conditions", []):
        if found["type"] == kind and found.get("observedGeneration", generation) == generation:
            return dict(found)
    return {}


def is_true(workload: JsonObject, kind: str) -> bool:
    """Returns whether the condition is True."""
    return bool(condition(workload, kind).get("status") == "True")
