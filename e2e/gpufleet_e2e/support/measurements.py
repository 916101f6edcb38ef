"""Counts writes in the apiserver's metrics, and summarizes durations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from prometheus_client.parser import text_string_to_metric_families

WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
REQUESTS = "apiserver_request_total"


@dataclass(frozen=True)
class Summary:
    """Durations in seconds."""

    p50: float
    min: float
    max: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Summary":
        """Summarizes at least one duration."""
        return cls(median(seconds), min(seconds), max(seconds), len(seconds))


def writes(page: str) -> Counter[str]:
    """Counts accepted writes by `group/resource/subresource` in the apiserver's metrics."""
    lines = [line for line in page.splitlines() if line.startswith(f"{REQUESTS}{{")]
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families("\n".join([f"# TYPE {REQUESTS} counter", *lines, ""])):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("verb") in WRITES and labels.get("code", "").startswith("2") and not labels.get("dry_run"):
                parts = (labels.get("group", ""), labels.get("resource", ""), labels.get("subresource", ""))
                found["/".join(part for part in parts if part)] += int(sample.value)
    return found


def per_minute(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Returns the increase of each count per minute, without those that did not grow."""
    grown = {key: after[key] - before.get(key, 0) for key in after}
    return {key: round(more * 60 / seconds, 2) for key, more in sorted(grown.items()) if more > 0}
