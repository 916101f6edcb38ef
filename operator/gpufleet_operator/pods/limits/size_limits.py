"""Limits of templates and pods, so that no user makes the passes of everybody slow.

The apiserver limits objects to 1.5 MiB only. That is enough for 30,000 host ports, each of which is compared with all
pods in each pass. What a pod has above a limit is not read, and such a pod is not placed.
"""

from collections.abc import Iterator, Mapping, Sized
from typing import Any, Final

from gpufleet_common.field_errors import too_many
from gpufleet_operator.model.pod_traits import LabelSelector, PodTraits
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_operator.pods.node_affinity import REQUIRED

MAX_TEMPLATE_VALUES: Final = 20_000
"""Values in `spec.template`: maps, lists and scalars."""
MAX_RULES: Final = 32
"""Required terms of affinity and anti-affinity, and topology spread constraints, each."""
MAX_HOST_PORTS: Final = 128
MAX_TOLERATIONS: Final = 256
MAX_RESOURCES: Final = 128
"""Resources of one container."""
MAX_EXPRESSIONS: Final = 128
"""Expressions of one selector or term."""
MAX_VALUES: Final = 4096
"""Values of one expression."""


def template_error(template: Any) -> str:
    """Returns the error of a template with too many values; empty if there is none."""
    return too_many("spec.template", MAX_TEMPLATE_VALUES, "values") if _is_large(template) else ""


def rule_errors(traits: PodTraits, needs: PodNeeds, path: str) -> Iterator[str]:
    """Yields what a pod has too many of. Lists that were read up to their limit have one entry more than it."""
    affinity, spread = f"{path}.affinity", f"{path}.topologySpreadConstraints"
    pods, apart = f"{affinity}.podAffinity.{REQUIRED}", f"{affinity}.podAntiAffinity.{REQUIRED}"
    nodes = f"{affinity}.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
    terms = needs.affinity_terms or ()
    lists: tuple[tuple[str, Sized, int], ...] = (
        (f"{path}.containers[].ports[].hostPort", traits.ports, MAX_HOST_PORTS),
        (pods, traits.affinity, MAX_RULES),
        (apart, traits.anti_affinity, MAX_RULES),
        (spread, traits.spread, MAX_RULES),
        (nodes, terms, MAX_RULES),
        (f"{path}.tolerations", needs.tolerations, MAX_TOLERATIONS),
        (f"{path}.containers[].resources", needs.extended, MAX_RESOURCES),
    )
    for at, found, most in lists:
        if len(found) > most:
            yield too_many(at, most)
    selectors: tuple[tuple[str, list[LabelSelector | None]], ...] = (
        (pods, [term.selector for term in traits.affinity]),
        (apart, [term.selector for term in traits.anti_affinity]),
        (spread, [constraint.selector for constraint in traits.spread]),
    )
    for at, found_selectors in selectors:
        for index, selector in enumerate(found_selectors):
            yield from _selector_errors(selector, f"{at}[{index}].labelSelector")
    for index, term in enumerate(terms):
        yield from _selector_errors(LabelSelector((*term.expressions, *term.fields)), f"{nodes}[{index}]")


def _selector_errors(selector: LabelSelector | None, path: str) -> Iterator[str]:
    expressions = selector.expressions if selector is not None else ()
    if len(expressions) > MAX_EXPRESSIONS:
        yield too_many(f"{path}.matchExpressions", MAX_EXPRESSIONS)
    for index, expression in enumerate(expressions):
        if len(expression.values) > MAX_VALUES:
            yield too_many(f"{path}.matchExpressions[{index}].values", MAX_VALUES)


def _is_large(template: Any) -> bool:
    """Returns whether there are too many values, without looking at more of them."""
    left, found = [template], 0
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            found += len(value)
            inner: Any = value.values()
        elif isinstance(value, list):
            found += len(value)
            inner = value
        else:
            continue
        if found > MAX_TEMPLATE_VALUES:
            return True
        left.extend(inner)
    return False
