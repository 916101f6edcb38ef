"""Encodes series in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from gpufleet_agent.metrics.device_collector import COUNTER, DCGM_FIELDS

__all__ = ["CONTENT_TYPE", "encode"]

_COUNTERS = tuple(field.name for field in DCGM_FIELDS if field.kind == COUNTER)


def encode(registry: CollectorRegistry | Collector) -> bytes:
    """Returns all series as text in version 0.0.4, the format of dcgm-exporter.

    Only this format has a type for DCGM's counters: OpenMetrics requires the suffix `_total` of a counter, and so does
    the library, which knows them as untyped.
    """
    text = generate_latest(registry)
    for name in _COUNTERS:
        text = text.replace(f"# TYPE {name} untyped\n".encode(), f"# TYPE {name} counter\n".encode())
    return text
