"""Validates a pod template before a pod is created from it.

The apiserver accepts any template, so what it cannot reject becomes a condition of the workload. Each message has the
grammar of field.Error. Nothing here raises for any template.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gpufleet_api.names import ENV_PREFIX, ENV_VISIBLE_DEVICES, RESOURCE_PREFIX
from gpufleet_api.workload import Devices, WorkloadSpec
from gpufleet_common.field_errors import duplicate, forbidden, invalid, not_found, required
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY, PodPolicy
from gpufleet_operator.model.pod_state.device_containers import counts, sidecars
from gpufleet_operator.pods.limits.size_limits import rule_errors, template_error
from gpufleet_operator.pods.node_affinity import PATH
from gpufleet_operator.pods.requests import pod_needs
from gpufleet_operator.pods.traits import pod_traits
from gpufleet_operator.pods.validate_policy import validate_policy
from gpufleet_operator.pods.validate_spec import (
    Errors,
    validate_container_name,
    validate_pod_spec,
    validate_resources,
)

_SPEC = "spec.template.spec"
_METADATA = "spec.template.metadata"
_CONTAINER = "spec.devices.container"


def validate_template(spec: WorkloadSpec, resources: Resources, policy: PodPolicy = DEFAULT_POLICY) -> tuple[str, ...]:
    """Returns all errors of the template; empty if pods can be created from it, or if the pods have other owners."""
    too_large = template_error(spec.pod_template)
    return (too_large,) if too_large else tuple(_errors(spec, resources, policy))


def _errors(spec: WorkloadSpec, resources: Resources, policy: PodPolicy) -> Errors:
    if not resources.name_for(spec.devices):
        yield forbidden("spec.devices.mode", f"mode {spec.devices.mode} is disabled in this cluster")
    if spec.adopts:
        return
    yield from validate_metadata(spec)
    pod = spec.pod_template.get("spec")
    if pod is None:
        yield required(_SPEC)
        return
    if not isinstance(pod, Mapping):
        yield invalid(_SPEC, pod, "must be a pod spec")
        return
    if pod.get("nodeName"):
        yield forbidden(f"{_SPEC}.nodeName", "the node is selected by the operator")
    yield from _names(pod, spec)
    yield from validate_pod_spec(pod, _SPEC)
    yield from validate_policy(pod, _SPEC, resources, policy)
    yield from _empty_terms(pod)
    yield from _no_devices(pod.get("resources"), f"{_SPEC}.resources", resources)
    malformed = list(_containers(pod))
    yield from malformed
    if malformed:
        return
    yield from rule_errors(pod_traits("", None, pod), pod_needs(pod), _SPEC)
    names = [str(c["name"]) for c in pod["containers"]]
    available = [*names, *(str(c["name"]) for c in sidecars(pod))]
    yield from _device_container(spec.devices, names, available)
    chosen = counts(spec) or {names[0]: spec.devices.count}
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(pod.get(kind) or ()):
            path = f"{_SPEC}.{kind}[{index}]"
            yield from _env(container, path)
            if container["name"] in chosen and container["name"] in available:
                yield from _device_count(container, path, resources, spec.devices, chosen[container["name"]])
            else:
                yield from _no_devices(container.get("resources"), f"{path}.resources", resources)


def validate_metadata(spec: WorkloadSpec) -> Errors:
    """Yields errors of the template's labels and annotations."""
    metadata = spec.pod_template.get("metadata")
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        yield invalid(_METADATA, metadata, "must be an object")
        return
    for kind in ("labels", "annotations"):
        entries = metadata.get(kind) or {}
        if not isinstance(entries, Mapping):
            yield invalid(f"{_METADATA}.{kind}", entries, "must be a map")
            continue
        for key in entries:
            if str(key).startswith(RESOURCE_PREFIX):
                yield forbidden(f"{_METADATA}.{kind}[{key}]", f"{RESOURCE_PREFIX}* is reserved for the operator")


def _names(pod: Mapping[str, Any], spec: WorkloadSpec) -> Errors:
    for field in ("hostname", "subdomain", "hostnameOverride"):
        if spec.network.enable_dns_hostnames and pod.get(field):
            detail = "is set by the operator unless spec.network.enableDNSHostnames is false"
            yield forbidden(f"{_SPEC}.{field}", detail)


def _empty_terms(pod: Mapping[str, Any]) -> Errors:
    """Rejects a required node affinity that matches no node: it could not be restricted to the selected one."""
    required_affinity: Any = pod
    for step in PATH:
        required_affinity = required_affinity.get(step) if isinstance(required_affinity, Mapping) else None
    if not isinstance(required_affinity, Mapping):
        return
    terms = required_affinity.get("nodeSelectorTerms")
    full = [t for t in terms if isinstance(t, Mapping) and any(t.values())] if isinstance(terms, list) else []
    if not full:
        path = ".".join((_SPEC, *PATH, "nodeSelectorTerms"))
        yield invalid(path, terms, "must have a term that is not empty")


def _containers(pod: Mapping[str, Any]) -> Errors:
    """Requires lists of containers with unique names; without them no further field can be checked."""
    if not pod.get("containers"):
        yield required(f"{_SPEC}.containers", "must have at least one container")
    seen: set[str] = set()
    for kind in ("containers", "initContainers"):
        containers = pod.get(kind) or ()
        if not isinstance(containers, list | tuple):
            yield invalid(f"{_SPEC}.{kind}", containers, "must be a list")
            continue
        for index, container in enumerate(containers):
            path = f"{_SPEC}.{kind}[{index}]"
            if not isinstance(container, Mapping):
                yield invalid(path, container, "must be an object")
                continue
            name = container.get("name")
            wrong = list(validate_container_name(name, f"{path}.name"))
            yield from wrong
            if not wrong and name in seen:
                yield duplicate(f"{path}.name", name)
            if not wrong:
                seen.add(str(name))
            yield from _container(container, path)


def _container(container: Mapping[str, Any], path: str) -> Errors:
    yield from validate_resources(container.get("resources"), f"{path}.resources")
    for field in ("env", "envFrom"):
        value = container.get(field)
        if value is not None and not isinstance(value, list | tuple):
            yield invalid(f"{path}.{field}", value, "must be a list")


def _device_container(devices: Devices, names: list[str], available: list[str]) -> Errors:
    choice = f"must be one of: {', '.join(available)}"
    for index, one in enumerate(devices.containers):
        if one.name not in available:
            yield not_found(f"spec.devices.containers[{index}].name", one.name, choice)
    if devices.containers:
        return
    if devices.container is None and len(names) > 1:
        yield required(_CONTAINER, f"the template has several containers, {choice}")
    elif devices.container is not None and devices.container not in available:
        yield not_found(_CONTAINER, devices.container, choice)


def _env(container: Mapping[str, Any], path: str) -> Errors:
    for index, entry in enumerate(container.get("env") or ()):
        name = str(entry.get("name", "")) if isinstance(entry, Mapping) else ""
        if name == ENV_VISIBLE_DEVICES or name.startswith(ENV_PREFIX):
            yield forbidden(f"{path}.env[{index}].name", f"{name} is set by gpufleet")
    for index, entry in enumerate(container.get("envFrom") or ()):
        prefix = str(entry.get("prefix") or "") if isinstance(entry, Mapping) else ""
        if prefix and _can_override(prefix):
            detail = "keys with this prefix could override variables that gpufleet sets"
            yield invalid(f"{path}.envFrom[{index}].prefix", prefix, detail)


def _can_override(prefix: str) -> bool:
    """Returns whether a key with this prefix can have the name of a variable that gpufleet sets."""
    return prefix.startswith(ENV_PREFIX) or any(n.startswith(prefix) for n in (ENV_VISIBLE_DEVICES, ENV_PREFIX))


def _device_amounts(given: Any, resources: Resources) -> Iterator[tuple[str, str, Any]]:
    """Yields `limits` or `requests`, resource and amount of each device resource."""
    for kind in ("limits", "requests"):
        amounts = given.get(kind) if isinstance(given, Mapping) else None
        for name, amount in amounts.items() if isinstance(amounts, Mapping) else ():
            if name in resources.names or str(name).startswith(RESOURCE_PREFIX):
                yield kind, str(name), amount


def _device_count(
    container: Mapping[str, Any], path: str, resources: Resources, devices: Devices, count: int
) -> Errors:
    for kind, name, amount in _device_amounts(container.get("resources"), resources):
        if name != resources.name_for(devices) or str(amount) != str(count):
            detail = f"must be omitted or equal spec.devices (count {count}, mode {devices.mode})"
            yield invalid(f"{path}.resources.{kind}[{name}]", amount, detail)


def _no_devices(given: Any, path: str, resources: Resources) -> Errors:
    for kind, name, _ in _device_amounts(given, resources):
        yield forbidden(f"{path}.{kind}[{name}]", f"only the container of {_CONTAINER} may request devices")
