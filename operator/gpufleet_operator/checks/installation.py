"""Checks of an installation: telemetry, registered devices, and one pod with its reserved device."""

from collections.abc import Iterable

from gpufleet_operator.model.lenient_json import Json, as_list, as_map, maps, text
from gpufleet_operator.pods.quantities import whole


def missing_telemetry(telemetries: Iterable[Json]) -> str:
    """Returns why no GPU can be placed by telemetry; empty: a node has fresh telemetry with devices."""
    names, states = [], []
    for telemetry in telemetries:
        name, status = text(as_map(telemetry.get("metadata")).get("name")), as_map(telemetry.get("status"))
        names.append(name)
        if not as_list(status.get("devices")):
            states.append(f"{name} has no devices")
        elif (fresh := condition(telemetry, "Fresh")).get("status") != "True":
            states.append(f"{name} is not fresh: {text(fresh.get('message')) or 'the operator has not read it yet'}")
        else:
            return ""
    return f"no usable GPUTelemetry: {'; '.join(states)}" if names else "no GPUTelemetry: no agent has written one"


def missing_plugin(telemetries: Iterable[Json], nodes: Iterable[Json], resource: str) -> str:
    """Returns why no kubelet can give out devices; empty: one offers the resource, or serves claims of DRA."""
    with_devices = {
        text(as_map(one.get("metadata")).get("name")): text(as_map(one.get("status")).get("transport"))
        for one in telemetries
        if as_list(as_map(one.get("status")).get("devices"))
    }
    if "DRA" in with_devices.values():
        return ""
    for node in nodes:
        offered = as_map(as_map(node.get("status")).get("allocatable")).get(resource)
        if as_map(node.get("metadata")).get("name") in with_devices and whole(offered, malformed=0) > 0:
            return ""
    return f"no node with telemetry offers {resource}: no device plugin is registered, or all its devices are unhealthy"


def unconfirmed(workload: Json) -> str:
    """Returns why the workload's pod is not Ready with its reserved device; empty: it is."""
    ready = condition(workload, "Ready")
    if ready.get("status") == "True":
        return ""
    return f"GPUWorkload is not Ready: {text(ready.get('message')) or 'the operator has not read it yet'}"


def placement(workload: Json) -> str:
    """Describes where the workload's pod runs: `POD on NODE has GPU-...`."""
    placements = maps(as_map(workload.get("status")).get("placements"))
    return "; ".join(
        f"pod {one.get('pod')} on {one.get('node')} has {', '.join(map(str, as_list(one.get('devices'))))}"
        for one in placements
    )


def condition(body: Json, kind: str) -> Json:
    """Returns a condition of an object; empty without it."""
    found = maps(as_map(body.get("status")).get("conditions"))
    return next((one for one in found if one.get("type") == kind), {})
