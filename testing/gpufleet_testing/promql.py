"""What a PromQL expression selects: a scanner that knows selectors and grouping, and needs no server.

Prometheus' own programs check the syntax in the end-to-end tests.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORDS = frozenset(
    {
        *("and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"),
        *("sum", "avg", "max", "min", "count", "topk", "bottomk"),
        *("absent", "histogram_quantile", "increase", "max_over_time", "rate", "sort_desc", "time", "vector"),
    }
)
_SELECTOR = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\s*(?:\{(?P<matchers>[^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Selector:
    """One instant or range selector."""

    metric: str
    matchers: tuple[tuple[str, str], ...]
    """Label and value; the operator does not matter here."""

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(label for label, _ in self.matchers)


def selectors(expression: str) -> Iterator[Selector]:
    """Yields the selectors of an expression."""
    for found in _SELECTOR.finditer(_RANGE.sub("", _GROUPING.sub(r"\1", expression))):
        if found["name"] not in _WORDS:
            yield Selector(found["name"], tuple(_MATCHER.findall(found["matchers"] or "")))


def grouping_labels(expression: str) -> set[str]:
    """Returns the labels in `by`, `on`, `group_left` and the like."""
    groups = [labels for _, labels in _GROUPING.findall(_STRING.sub('""', expression))]
    return {label.strip() for labels in groups for label in labels.split(",") if label.strip()}
