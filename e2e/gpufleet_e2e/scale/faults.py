"""What must never be seen in a fleet, however fast it changes."""

from collections import Counter
from collections.abc import Sequence

from gpufleet_e2e.scale.client import JsonObject


def faults(telemetry: Sequence[JsonObject], found_pods: Sequence[JsonObject]) -> list[str]:
    """Returns what contradicts the ledger: a device that is promised twice, a pod that runs without a reservation.

    Args:
        telemetry: The GPUTelemetry of all nodes.
        found_pods: The pods of workloads, read later.
    """
    found: list[str] = []
    where: dict[str, str] = {}
    for node in telemetry:
        name, assignments = node["metadata"]["name"], node.get("spec", {}).get("assignments", [])
        for uuid, times in Counter(uuid for one in assignments for uuid in one["devices"]).items():
            if times > 1:
                found.append(f"{name}: device {uuid} is assigned {times} times")
        for one in assignments:
            if one["podUID"] in where:
                found.append(f"pod {one['pod']} has reservations on {where[one['podUID']]} and {name}")
            where[one["podUID"]] = name
    for pod in found_pods:
        meta, spec = pod["metadata"], pod["spec"]
        if spec.get("schedulingGates") or meta.get("deletionTimestamp"):
            continue
        on = where.get(meta["uid"])
        if on is None:
            found.append(f"pod {meta['name']} was released without a reservation")
        elif spec.get("nodeName", on) != on:
            found.append(f"pod {meta['name']} is on {spec['nodeName']}, its reservation on {on}")
    return found
