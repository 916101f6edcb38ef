"""Judges a pod template before a pod is made from it.

The template is free-form for the apiserver, so what it can't refuse becomes a condition here: each problem names the
field and the value and says what to do. Whatever stands in the template, this never raises.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gpufleet_api.names import ENV_PREFIX, ENV_VISIBLE_DEVICES, RESOURCE_PREFIX
from gpufleet_api.workload import Devices, WorkloadSpec
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.field_error import FieldError, show
from gpufleet_operator.pods.validate_spec import container_name, pod_parts
from gpufleet_operator.pods.validate_spec import resources as amounts

_SPEC = "spec.template.spec"


def problems(spec: WorkloadSpec, resources: Resources) -> tuple[FieldError, ...]:
    """Everything wrong with the template, in the order of its fields; empty: pods can be made from it."""
    return tuple(_problems(spec, resources))


def device_container(spec: WorkloadSpec) -> str:
    """The app container that gets the devices. Only for a template without problems."""
    return spec.devices.container or str(spec.template["spec"]["containers"][0]["name"])


def _problems(spec: WorkloadSpec, resources: Resources) -> Iterator[FieldError]:
    if not resources.asked(spec.devices):
        yield FieldError("spec.devices.mode", f"is {spec.devices.mode}, but sharing is switched off for this cluster")
    yield from _metadata(spec.template.get("metadata"))
    pod = spec.template.get("spec")
    if not isinstance(pod, Mapping):
        yield FieldError(_SPEC, f"must be a pod spec, is {show(pod)}")
        return
    if pod.get("nodeName"):
        yield FieldError(
            f"{_SPEC}.nodeName", f"is {show(pod['nodeName'])}; leave it out, the operator chooses the node"
        )
    yield from pod_parts(pod, _SPEC)
    yield from _affinity(pod.get("affinity"))
    yield from _asks(pod.get("resources"), f"{_SPEC}.resources", resources)
    shape = list(_shape(pod))
    yield from shape
    if shape:
        return
    names = [str(c["name"]) for c in pod["containers"]]
    yield from _choice(spec.devices.container, names)
    chosen = spec.devices.container or names[0]
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(pod.get(kind) or ()):
            path = f"{_SPEC}.{kind}[{index}]"
            yield from _env(container, path)
            if kind == "containers" and container["name"] == chosen:
                yield from _own_count(container, path, resources, spec.devices)
            else:
                yield from _asks(container.get("resources"), f"{path}.resources", resources)


def _metadata(metadata: Any) -> Iterator[FieldError]:
    path = "spec.template.metadata"
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        yield FieldError(path, f"must hold labels and annotations, is {show(metadata)}")
        return
    for kind in ("labels", "annotations"):
        entries = metadata.get(kind) or {}
        if not isinstance(entries, Mapping):
            yield FieldError(f"{path}.{kind}", f"must be a map, is {show(entries)}")
            continue
        for key in entries:
            if str(key).startswith(RESOURCE_PREFIX):
                yield FieldError(f"{path}.{kind}", f"sets {key}; {RESOURCE_PREFIX}* is written by the operator alone")


def _affinity(affinity: Any) -> Iterator[FieldError]:
    required: Any = affinity
    for step in ("nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"):
        required = required.get(step) if isinstance(required, Mapping) else None
    if not isinstance(required, Mapping):
        return
    terms = required.get("nodeSelectorTerms")
    full = [t for t in terms if isinstance(t, Mapping) and any(t.values())] if isinstance(terms, list) else []
    if not full:
        path = f"{_SPEC}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        yield FieldError(path, f"is {show(terms)}: only empty terms, which match no node; the node can't be pinned")


def _shape(pod: Mapping[str, Any]) -> Iterator[FieldError]:
    """Containers must be lists of objects with different names, or nothing else can be judged."""
    if not pod.get("containers"):
        yield FieldError(f"{_SPEC}.containers", f"must name at least one container, is {show(pod.get('containers'))}")
    seen: set[str] = set()
    for kind in ("containers", "initContainers"):
        containers = pod.get(kind) or ()
        if not isinstance(containers, list | tuple):
            yield FieldError(f"{_SPEC}.{kind}", f"must be a list, is {show(containers)}")
            continue
        for index, container in enumerate(containers):
            path = f"{_SPEC}.{kind}[{index}]"
            if not isinstance(container, Mapping):
                yield FieldError(path, f"must be a container, is {show(container)}")
                continue
            name = container.get("name")
            wrong = list(container_name(name, f"{path}.name"))
            yield from wrong
            if not wrong and name in seen:
                yield FieldError(f"{path}.name", f"{show(name)} stands twice")
            if not wrong:
                seen.add(str(name))
            yield from _parts(container, path)


def _parts(container: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    yield from amounts(container.get("resources"), f"{path}.resources")
    for field in ("env", "envFrom"):
        value = container.get(field)
        if value is not None and not isinstance(value, list | tuple):
            yield FieldError(f"{path}.{field}", f"must be a list, is {show(value)}")


def _choice(wanted: str | None, names: list[str]) -> Iterator[FieldError]:
    known = ", ".join(names)
    if wanted is None and len(names) > 1:
        yield FieldError(
            "spec.devices.container", f"is missing: the template has several containers, name one of {known}"
        )
    elif wanted is not None and wanted not in names:
        message = f"is {show(wanted)}, which is no app container; there is {known}"
        yield FieldError("spec.devices.container", message)


def _env(container: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    for index, entry in enumerate(container.get("env") or ()):
        name = str(entry.get("name", "")) if isinstance(entry, Mapping) else ""
        if name == ENV_VISIBLE_DEVICES or name.startswith(ENV_PREFIX):
            yield FieldError(f"{path}.env[{index}].name", f"is {name}, which would override what the node agent sets")
    for index, entry in enumerate(container.get("envFrom") or ()):
        prefix = str(entry.get("prefix") or "") if isinstance(entry, Mapping) else ""
        if prefix and _can_reserve(prefix):
            message = f"is {prefix}, by which a key could override what the node agent sets"
            yield FieldError(f"{path}.envFrom[{index}].prefix", message)


def _can_reserve(prefix: str) -> bool:
    """True when some key behind the prefix makes a name that belongs to the node agent."""
    return prefix.startswith(ENV_PREFIX) or any(n.startswith(prefix) for n in (ENV_VISIBLE_DEVICES, ENV_PREFIX))


def _requested(given: Any, resources: Resources) -> Iterator[tuple[str, str, Any]]:
    """(limits or requests, resource, amount) of what is ours to give."""
    for kind in ("limits", "requests"):
        amounts = given.get(kind) if isinstance(given, Mapping) else None
        for name, amount in amounts.items() if isinstance(amounts, Mapping) else ():
            if name in resources.names or str(name).startswith(RESOURCE_PREFIX):
                yield kind, str(name), amount


def _own_count(container: Mapping[str, Any], path: str, resources: Resources, asked: Devices) -> Iterator[FieldError]:
    for kind, name, amount in _requested(container.get("resources"), resources):
        if name != resources.asked(asked) or str(amount) != str(asked.count):
            wanted = f"spec.devices asks for {asked.count} of mode {asked.mode}"
            message = f"is {show(amount)}, but {wanted}; leave it out, the operator adds it"
            yield FieldError(f"{path}.resources.{kind}[{name}]", message)


def _asks(given: Any, path: str, resources: Resources) -> Iterator[FieldError]:
    for kind, name, amount in _requested(given, resources):
        message = f"is {show(amount)}; only the container of spec.devices.container may have devices"
        yield FieldError(f"{path}.{kind}[{name}]", message)
