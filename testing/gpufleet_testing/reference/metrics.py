"""Prometheus metrics, and tables of them, from the registries of agent and operator."""

from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class ExportedMetric:
    """A metric by the name of its series; those of a histogram have suffixes."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def of_devices() -> list[ExportedMetric]:
    """Returns the metrics of devices under DCGM's names, without their labels, which are the same for all."""
    families = DeviceCollector(NodeSnapshot, dict, "node", 60.0).collect()
    return [ExportedMetric(family.name, _type(family), (), family.documentation) for family in families]


def of_agent() -> list[ExportedMetric]:
    """Returns the metrics of the agent itself."""
    registry = CollectorRegistry()
    counters = vars(Instruments(registry, "0"))
    labels = _labels(counters.values())
    registry.register(AgentCollector(NodeSnapshot, "node", lambda: (0, 0), lambda: 0.0, stale_seconds=60.0))
    registry.register(HolderCollector(NodeSnapshot, dict, "node"))
    return [_metric(family, labels) for family in registry.collect()]


def of_operator() -> list[ExportedMetric]:
    """Returns the metrics of the operator."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    labels = _labels(one for group in (metrics, metrics.writes, metrics.pressure) for one in vars(group).values())
    return [_metric(family, labels) for family in registry.collect() if family.name.startswith("gpufleet_")]


def devices() -> str:
    """Returns the table of `of_devices`."""
    rows = ((code(metric.name), metric.kind, metric.meaning) for metric in of_devices())
    return table(("metric", "type", "meaning"), rows)


def agent() -> str:
    """Returns the table of `of_agent`."""
    return _table(of_agent())


def operator() -> str:
    """Returns the table of `of_operator`."""
    return _table(of_operator())


def _table(metrics: Iterable[ExportedMetric]) -> str:
    rows = [(code(one.name), one.kind, ", ".join(map(code, one.labels)), one.meaning) for one in metrics]
    return table(("metric", "type", "labels", "meaning"), sorted(rows))


def _type(family: Metric) -> str:
    """Returns the type as the agent writes it, see `gpufleet_agent.metrics.exposition`."""
    return "counter" if family.type == COUNTER else family.type


def _labels(instruments: Iterable[object]) -> dict[str, tuple[str, ...]]:
    """Returns label names by metric; a registry doesn't list those of a metric without series."""
    return {
        metric._name: tuple(metric._labelnames)  # noqa: SLF001 - the library has no public way to ask
        for metric in instruments
        if isinstance(metric, MetricWrapperBase)
    }


def _metric(family: Metric, labels: dict[str, tuple[str, ...]]) -> ExportedMetric:
    name = family.name + ("_total" if family.type == "counter" else "")
    found = labels.get(family.name) or getattr(family, "_labelnames", ()) or _of_samples(family)
    return ExportedMetric(name, family.type, tuple(found), family.documentation)


def _of_samples(family: Metric) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le"))
