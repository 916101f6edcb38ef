"""Encodes series in the text format of Prometheus.

The library spends most of its time on names and labels, which are the same in most scrapes, so their text is cached.
"""

from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gpufleet_agent.metrics.device_collector import COUNTER, DCGM_FIELDS

__all__ = ["CONTENT_TYPE", "encode"]

_COUNTERS = frozenset(field.name for field in DCGM_FIELDS if field.kind == COUNTER)
_MOVED_SUFFIXES = ("_created", "_gsum", "_gcount")
"""Suffixes of samples that the library writes after the others of their metric, as separate metrics."""
_MAX_SERIES = 4096
"""Maximum number of series whose names and labels are cached, about 1 kB each."""


class _One(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        yield self._metric


def encode(registry: CollectorRegistry | Collector) -> bytes:
    """Returns all series as text in version 0.0.4, the format of dcgm-exporter.

    Only this format has a type for DCGM's counters: OpenMetrics requires the suffix `_total` of a counter, and so does
    the library, which knows them as untyped.
    """
    return "".join(part for metric in registry.collect() for part in _parts(metric)).encode()


def _parts(metric: Metric) -> Iterable[str]:
    if any(sample.timestamp is not None or sample.name.endswith(_MOVED_SUFFIXES) for sample in metric.samples):
        yield _by_library(metric)
        return
    yield _head(metric.name, metric.documentation, metric.type)
    for sample in metric.samples:
        value = floatToGoString(sample.value)  # type: ignore[no-untyped-call] # published without types
        yield f"{_series(sample.name, tuple(sample.labels.items()))} {value}\n"


@lru_cache(maxsize=256)
def _head(name: str, documentation: str, kind: str) -> str:
    text = _by_library(Metric(name, documentation, kind))
    return text.replace(f"# TYPE {name} untyped\n", f"# TYPE {name} counter\n") if name in _COUNTERS else text


@lru_cache(maxsize=_MAX_SERIES)
def _series(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    metric = Metric(name, "", "gauge")
    metric.add_sample(name, dict(labels), 0)
    return _by_library(metric).rstrip("\n").rpartition("\n")[2].removesuffix(" 0.0")


def _by_library(metric: Metric) -> str:
    return generate_latest(_One(metric)).decode()
