"""Validates the fields of a pod template that the operator itself reads or changes.

The apiserver validates all other fields when a pod is created. These fields are read before there is a pod.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpufleet_common.field_errors import invalid, required
from gpufleet_operator.pods.node_affinity import PATH
from gpufleet_operator.pods.quantities import quantity

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Errors = Iterator[str]


def validate_pod_spec(pod: Mapping[str, Any], path: str) -> Errors:
    """Yields errors of gates, node selector, tolerations, node affinity, resources and overhead."""
    yield from _each(pod.get("schedulingGates"), f"{path}.schedulingGates", _gate)
    yield from _strings(pod.get("nodeSelector"), f"{path}.nodeSelector")
    yield from _each(pod.get("tolerations"), f"{path}.tolerations", _toleration)
    yield from _node_affinity(pod, path)
    yield from validate_resources(pod.get("resources"), f"{path}.resources")
    yield from _quantities(pod.get("overhead"), f"{path}.overhead")


def validate_container_name(name: Any, path: str) -> Errors:
    """Yields the error of a container's name, which must be a DNS label."""
    malformed = list(_name(name, path))
    yield from malformed
    if not malformed and not _LABEL.fullmatch(name):
        yield invalid(path, name, "must be a lowercase RFC 1123 label of at most 63 characters")


def validate_resources(given: Any, path: str) -> Errors:
    """Yields errors of limits and requests."""
    if _not_a_map(given):
        yield invalid(path, given, "must be an object")
        return
    for kind in ("limits", "requests"):
        yield from _quantities((given or {}).get(kind), f"{path}.{kind}")


def _each(given: Any, path: str, validate: Callable[[Mapping[str, Any], str], Errors]) -> Errors:
    """Yields errors of a list of objects."""
    if given is not None and not isinstance(given, list | tuple):
        yield invalid(path, given, "must be a list")
        return
    for index, one in enumerate(given or ()):
        at = f"{path}[{index}]"
        if isinstance(one, Mapping):
            yield from validate(one, at)
        else:
            yield invalid(at, one, "must be an object")


def _gate(gate: Mapping[str, Any], path: str) -> Errors:
    yield from _name(gate.get("name"), f"{path}.name")


def _toleration(toleration: Mapping[str, Any], path: str) -> Errors:
    for field in ("key", "operator", "value", "effect"):
        if not isinstance(toleration.get(field), str | None):
            yield invalid(f"{path}.{field}", toleration[field], "must be a string")


def _node_affinity(pod: Mapping[str, Any], path: str) -> Errors:
    here: Any = pod
    for step in PATH:
        here, path = here.get(step), f"{path}.{step}"
        if here is None:
            return
        if not isinstance(here, Mapping):
            yield invalid(path, here, "must be an object")
            return
    yield from _each(here.get("nodeSelectorTerms"), f"{path}.nodeSelectorTerms", _term)


def _term(term: Mapping[str, Any], path: str) -> Errors:
    for kind in ("matchExpressions", "matchFields"):
        yield from _each(term.get(kind), f"{path}.{kind}", _expression)


def _expression(expression: Mapping[str, Any], path: str) -> Errors:
    for field in ("key", "operator"):
        yield from _name(expression.get(field), f"{path}.{field}")
    values = expression.get("values")
    if values is not None and not (isinstance(values, list | tuple) and all(isinstance(v, str) for v in values)):
        yield invalid(f"{path}.values", values, "must be a list of strings")


def _strings(given: Any, path: str) -> Errors:
    if _not_a_map(given):
        yield invalid(path, given, "must be a map")
        return
    for key, value in (given or {}).items():
        if not isinstance(value, str):
            yield invalid(f"{path}[{key}]", value, "must be a string")


def _quantities(given: Any, path: str) -> Errors:
    if _not_a_map(given):
        yield invalid(path, given, "must be a map")
        return
    for name, amount in (given or {}).items():
        try:
            negative = quantity(amount) < 0
        except ValueError:
            yield invalid(f"{path}[{name}]", amount, "must be a resource quantity")
        else:
            if negative:
                yield invalid(f"{path}[{name}]", amount, "must be greater than or equal to 0")


def _name(value: Any, path: str) -> Errors:
    if value is None or value == "":
        yield required(path)
    elif not isinstance(value, str):
        yield invalid(path, value, "must be a string")


def _not_a_map(value: Any) -> bool:
    return value is not None and type(value) is not dict and not isinstance(value, Mapping)
