"""Reads the traits of a pod from its JSON, by the rules of kube-scheduler.

Malformed fields are ignored; nothing raises. Of each list, at most one entry more than its limit is read, see
`size_limits`.
"""

import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

from gpufleet_operator.model.lenient_json import Json, as_list, as_map, maps, number, text
from gpufleet_operator.model.pod_traits import (
    ALL_ADDRESSES,
    HostPort,
    Labels,
    LabelSelector,
    PodTerm,
    PodTraits,
    SpreadConstraint,
)
from gpufleet_operator.placement.node_rules import MatchExpression
from gpufleet_operator.pods.limits.size_limits import MAX_EXPRESSIONS, MAX_HOST_PORTS, MAX_RULES, MAX_VALUES
from gpufleet_operator.pods.node_affinity import REQUIRED

T = TypeVar("T")
_SHARED_LABELS = 8192


def pod_traits(namespace: str, labels: Any, spec: Any) -> PodTraits:
    """Returns the traits of a pod that is to be placed."""
    spec, own = as_map(spec), _labels(labels)
    return PodTraits(
        namespace=namespace,
        labels=own,
        ports=_first(MAX_HOST_PORTS, _ports(spec)),
        anti_affinity=_first(MAX_RULES, _terms(spec, "podAntiAffinity", namespace, own)),
        affinity=_first(MAX_RULES, _terms(spec, "podAffinity", namespace, own)),
        spread=_first(MAX_RULES, _spread(spec, own)),
    )


def bound_traits(namespace: str, labels: Any, spec: Any) -> PodTraits:
    """Returns the traits of a pod on a node that other pods can conflict with. Pods with equal labels share them."""
    spec, pairs = as_map(spec), _pairs(labels)
    own, ports = _shared_labels(pairs), _first(MAX_HOST_PORTS, _ports(spec))
    terms = _first(MAX_RULES, _terms(spec, "podAntiAffinity", namespace, own))
    return _shared_traits(namespace, pairs, ports, terms)


@lru_cache(maxsize=_SHARED_LABELS)
def _shared_traits(
    namespace: str, labels: tuple[tuple[str, str], ...], ports: tuple[HostPort, ...], anti_affinity: tuple[PodTerm, ...]
) -> PodTraits:
    return PodTraits(sys.intern(namespace), _shared_labels(labels), ports=ports, anti_affinity=anti_affinity)


def _first(most: int, found: Iterable[T]) -> tuple[T, ...]:
    return tuple(islice(found, most + 1))


def _labels(given: Any) -> Labels:
    return _shared_labels(_pairs(given))


def _pairs(given: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(key), text(value)) for key, value in as_map(given).items()))


@lru_cache(maxsize=_SHARED_LABELS)
def _shared_labels(pairs: tuple[tuple[str, str], ...]) -> Labels:
    return {sys.intern(key): sys.intern(value) for key, value in pairs}


def _ports(spec: Json) -> Iterator[HostPort]:
    host_network = spec.get("hostNetwork") is True
    sidecars = (c for c in maps(spec.get("initContainers")) if c.get("restartPolicy") == "Always")
    for container in (*maps(spec.get("containers")), *sidecars):
        for port in maps(container.get("ports")):
            used = number(port.get("hostPort")) or (number(port.get("containerPort")) if host_network else 0)
            if used:
                yield HostPort(used, text(port.get("protocol")) or "TCP", text(port.get("hostIP")) or ALL_ADDRESSES)


def _terms(spec: Json, kind: str, namespace: str, own: Labels) -> Iterator[PodTerm]:
    for term in maps(as_map(as_map(spec.get("affinity")).get(kind)).get(REQUIRED)):
        listed, by_labels = frozenset(map(text, as_list(term.get("namespaces")))), term.get("namespaceSelector")
        everywhere = by_labels is not None and _selector(by_labels) == LabelSelector()
        yield PodTerm(
            topology_key=text(term.get("topologyKey")),
            selector=_selector(
                term.get("labelSelector"),
                *_equal_to_own(term.get("matchLabelKeys"), own, "In"),
                *_equal_to_own(term.get("mismatchLabelKeys"), own, "NotIn"),
            ),
            namespaces=None if everywhere else listed or (frozenset({namespace}) if by_labels is None else listed),
            by_namespace_labels=by_labels is not None and not everywhere,
        )


def _spread(spec: Json, own: Labels) -> Iterator[SpreadConstraint]:
    for constraint in maps(spec.get("topologySpreadConstraints")):
        if constraint.get("whenUnsatisfiable") == "DoNotSchedule":
            yield SpreadConstraint(
                topology_key=text(constraint.get("topologyKey")),
                selector=_selector(
                    constraint.get("labelSelector"), *_equal_to_own(constraint.get("matchLabelKeys"), own, "In")
                ),
                max_skew=max(1, number(constraint.get("maxSkew"))),
                min_domains=max(1, number(constraint.get("minDomains"))),
                honors_affinity=constraint.get("nodeAffinityPolicy") != "Ignore",
                honors_taints=constraint.get("nodeTaintsPolicy") == "Honor",
            )


def _equal_to_own(keys: Any, own: Labels, operator: str) -> Iterable[MatchExpression]:
    """Yields the expressions of matchLabelKeys: the apiserver adds the same ones to the stored selector."""
    return (MatchExpression(key, operator, (own[key],)) for key in map(text, as_list(keys)) if key in own)


def _selector(given: Any, *more: MatchExpression) -> LabelSelector | None:
    if given is None:
        return None
    given = as_map(given)
    labels = islice(as_map(given.get("matchLabels")).items(), MAX_EXPRESSIONS + 1)
    exact = [MatchExpression(str(key), "In", (text(value),)) for key, value in labels]
    return LabelSelector((*exact, *expressions(given.get("matchExpressions")), *more))


def expressions(given: Any) -> tuple[MatchExpression, ...]:
    """Returns the expressions of a selector or a node selector term."""
    return tuple(
        MatchExpression(
            text(one.get("key")),
            text(one.get("operator")),
            tuple(map(text, as_list(one.get("values"))[: MAX_VALUES + 1])),
        )
        for one in islice(maps(given), MAX_EXPRESSIONS + 1)
    )
