"""Tables of Prometheus metrics, from the registries of agent and operator."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from gpufleet_agent.metrics.agent_collector import AgentCollector
from gpufleet_agent.metrics.device_collector import COUNTER, DeviceCollector
from gpufleet_agent.metrics.holder_collector import HolderCollector
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.sampling.snapshot import NodeSnapshot
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_testing.reference.markdown import code, table

_NO_LABELS: dict[str, tuple[str, ...]] = {}


def devices() -> str:
    """Returns the metrics of devices under DCGM's names, without their labels, which are the same for all."""
    families = DeviceCollector(NodeSnapshot, dict, "node", 60.0).collect()
    rows = ((code(family.name), _type(family), family.documentation) for family in families)
    return table(("metric", "type", "meaning"), rows)


def agent() -> str:
    """Returns the metrics of the agent itself."""
    registry = CollectorRegistry()
    counters = vars(Instruments(registry, "0"))
    labels = _labels(counters.values())
    registry.register(AgentCollector(NodeSnapshot, "node", lambda: (0, 0), lambda: 0.0, stale_seconds=60.0))
    registry.register(HolderCollector(NodeSnapshot, dict, "node"))
    rows = [_row(family, labels) for family in registry.collect()]
    return table(("metric", "type", "labels", "meaning"), sorted(rows))


def _type(family: Metric) -> str:
    """Returns the type as the agent writes it, see `gpufleet_agent.metrics.exposition`."""
    return "counter" if family.type == COUNTER else family.type


def operator() -> str:
    """Returns the metrics of the operator."""
    registry = CollectorRegistry()
    labels = _labels(vars(Metrics(registry)).values())
    rows = [_row(family, labels) for family in registry.collect() if family.name.startswith("gpufleet_")]
    return table(("metric", "type", "labels", "meaning"), sorted(rows))


def _labels(instruments: Iterable[object]) -> dict[str, tuple[str, ...]]:
    """Returns label names by metric; a registry doesn't list those of a metric without series."""
    return {
        metric._name: tuple(metric._labelnames)  # noqa: SLF001 - the library has no public way to ask
        for metric in instruments
        if isinstance(metric, MetricWrapperBase)
    }


def _row(family: Metric, labels: dict[str, tuple[str, ...]] = _NO_LABELS) -> tuple[str, str, str, str]:
    name = family.name + ("_total" if family.type == "counter" else "")
    found = labels.get(family.name) or getattr(family, "_labelnames", ()) or _of_samples(family)
    return code(name), family.type, ", ".join(map(code, found)), family.documentation


def _of_samples(family: Metric) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le"))
