"""Encodes series in the text format of Prometheus."""

from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from gpufleet_agent.metrics.device_collector import COUNTER, DCGM_FIELDS

__all__ = ["CONTENT_TYPE", "encode"]

_COUNTERS = frozenset(field.name for field in DCGM_FIELDS if field.kind == COUNTER)
_TYPES = {"gauge": "gauge", "counter": "counter", "unknown": "untyped"}
_LABELS_KEPT = 4096
"""Encoded labels that are kept for the next scrape, which has nearly the same."""


def encode(registry: CollectorRegistry | Collector) -> bytes:
    """Returns all series as text in version 0.0.4, the format of dcgm-exporter.

    Only this format has a type for DCGM's counters: OpenMetrics requires the suffix `_total` of a counter, and so does
    the library, which knows them as untyped. Otherwise the text is that of the library, which checks each label of each
    sample for characters that our names do not have: it needs four times as long.
    """
    return "".join(part for metric in registry.collect() for part in _encoded(metric)).encode()


def _encoded(metric: Metric) -> Iterable[str]:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    if metric.type not in _TYPES or any(sample.name != name or sample.timestamp for sample in metric.samples):
        yield generate_latest(_One(metric)).decode()
        return
    kind = "counter" if name in _COUNTERS else _TYPES[metric.type]
    text = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    yield from map(_line, metric.samples)


def _line(sample: Sample) -> str:
    labels = ",".join([_label(*pair) for pair in sorted(sample.labels.items())])
    value = floatToGoString(sample.value)  # type: ignore[no-untyped-call] # published without types
    return f"{sample.name}{f'{{{labels}}}' if labels else ''} {value}\n"


@lru_cache(_LABELS_KEPT)
def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{name}="{escaped}"'


class _One(Collector):
    """A metric, for the library."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)
