"""Judges the parts of a pod template that the operator itself reads or rewrites.

The rest is judged by the apiserver when a pod is made. These can't wait for that: a gate, a toleration or an amount of
another form than expected would be read before there is a pod.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gpufleet_operator.model.field_error import FieldError, show
from gpufleet_operator.pods.quantities import quantity

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

Problems = Iterator[FieldError]


def pod_parts(pod: Mapping[str, Any], path: str) -> Problems:
    """What stands beside the containers: gates, node selector, tolerations, affinity, resources, overhead."""
    for index, gate in each_map(pod.get("schedulingGates"), f"{path}.schedulingGates"):
        if isinstance(gate, FieldError):
            yield gate
        elif not _is_name(gate.get("name")):
            yield FieldError(f"{path}.schedulingGates[{index}].name", f"must be a name, is {show(gate.get('name'))}")
    yield from _texts(pod.get("nodeSelector"), f"{path}.nodeSelector")
    for index, toleration in each_map(pod.get("tolerations"), f"{path}.tolerations"):
        if isinstance(toleration, FieldError):
            yield toleration
        else:
            yield from _fields(toleration, f"{path}.tolerations[{index}]", ("key", "operator", "value", "effect"))
    yield from _affinity(pod, path)
    yield from resources(pod.get("resources"), f"{path}.resources")
    yield from _quantities(pod.get("overhead"), f"{path}.overhead")


def container_name(name: Any, path: str) -> Problems:
    """A container's name: a DNS label."""
    if not _is_name(name):
        yield FieldError(path, f"must be a name, is {show(name)}")
    elif not _LABEL.fullmatch(name):
        yield FieldError(path, f"is {show(name)}; a name has up to 63 lower case letters, digits and '-'")


def resources(given: Any, path: str) -> Problems:
    """Limits and requests: maps of quantities."""
    if _not_a_map(given):
        yield FieldError(path, f"must be a map, is {show(given)}")
        return
    for kind in ("limits", "requests"):
        yield from _quantities((given or {}).get(kind), f"{path}.{kind}")


def each_map(given: Any, path: str) -> Iterator[tuple[int, Any]]:
    """The maps in a list by position; in the place of what isn't one, the problem."""
    if given is not None and not isinstance(given, list | tuple):
        yield 0, FieldError(path, f"must be a list, is {show(given)}")
        return
    for index, one in enumerate(given or ()):
        yield (
            index,
            one if isinstance(one, Mapping) else FieldError(f"{path}[{index}]", f"must be a map, is {show(one)}"),
        )


def _affinity(pod: Mapping[str, Any], path: str) -> Problems:
    here: Any = pod
    for step in ("affinity", "nodeAffinity", _REQUIRED):
        here, path = here.get(step), f"{path}.{step}"
        if here is None:
            return
        if not isinstance(here, Mapping):
            yield FieldError(path, f"must be a map, is {show(here)}")
            return
    path = f"{path}.nodeSelectorTerms"
    for index, term in each_map(here.get("nodeSelectorTerms"), path):
        if isinstance(term, FieldError):
            yield term
            continue
        for kind in ("matchExpressions", "matchFields"):
            for at, expression in each_map(term.get(kind), f"{path}[{index}].{kind}"):
                if isinstance(expression, FieldError):
                    yield expression
                else:
                    yield from _expression(expression, f"{path}[{index}].{kind}[{at}]")


def _expression(expression: Mapping[str, Any], path: str) -> Problems:
    for field in ("key", "operator"):
        if not _is_name(expression.get(field)):
            yield FieldError(f"{path}.{field}", f"must be a text, is {show(expression.get(field))}")
    values = expression.get("values")
    if values is not None and not (isinstance(values, list | tuple) and all(isinstance(v, str) for v in values)):
        yield FieldError(f"{path}.values", f"must be a list of texts, is {show(values)}")


def _fields(given: Mapping[str, Any], path: str, fields: tuple[str, ...]) -> Problems:
    for field in fields:
        if not isinstance(given.get(field), str | None):
            yield FieldError(f"{path}.{field}", f"must be a text, is {show(given[field])}")


def _texts(given: Any, path: str) -> Problems:
    if _not_a_map(given):
        yield FieldError(path, f"must be a map, is {show(given)}")
        return
    for key, value in (given or {}).items():
        if not isinstance(value, str):
            yield FieldError(f"{path}[{key}]", f"must be a text, is {show(value)}")


def _quantities(given: Any, path: str) -> Problems:
    if _not_a_map(given):
        yield FieldError(path, f"must be a map, is {show(given)}")
        return
    for name, amount in (given or {}).items():
        try:
            negative = quantity(amount) < 0
        except ValueError:
            yield FieldError(f"{path}[{name}]", f"is {show(amount)}, which is not a resource quantity")
        else:
            if negative:
                yield FieldError(f"{path}[{name}]", f"is {show(amount)}, must be 0 or more")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _not_a_map(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping)
