"""Node rules of a pod, as in its spec."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MatchExpression:
    """As in v1.NodeSelectorRequirement."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """As in v1.NodeSelectorTerm: all expressions and fields must match. An empty term matches nothing."""

    expressions: tuple[MatchExpression, ...] = ()
    fields: tuple[MatchExpression, ...] = ()


@dataclass(frozen=True, slots=True)
class Toleration:
    """As in v1.Toleration."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
