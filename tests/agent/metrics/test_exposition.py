"""The text is the library's, except that DCGM's counters get their type."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
    SummaryMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.metrics.exposition import encode


class Given(Collector):
    def __init__(self, *metrics: Metric) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def test_a_counter_of_dcgm_has_its_type_and_no_suffix() -> None:
    energy = UnknownMetricFamily("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Energy.", labels=["gpu"])
    energy.add_metric(["0"], 12)
    assert encode(Given(energy)).decode().splitlines() == [
        "# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Energy.",
        "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter",
        'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0"} 12.0',
    ]


def metrics(value: float) -> list[Metric]:
    """Returns metrics of every type, with values that need care."""
    labels = {"quote": 'a"b', "backslash": "a\\b", "line": "a\nb", "other": "\u00fc"}
    gauge = GaugeMetricFamily("gauge", 'Of "two\nlines" \\ here.', labels=list(labels))
    for number in (value, float("inf"), float("-inf"), float("nan"), 1e21, 123456789.0, True, 0):
        gauge.add_metric([*list(labels.values())[:3], str(number)], number)
    counter = CounterMetricFamily("work", "Counted.", labels=["of"], created=3)
    counter.add_metric(["one"], value, created=12.5)
    timed = GaugeMetricFamily("timed", "With a time.", labels=["of"])
    timed.add_metric(["one"], value, timestamp=1.5)
    histogram = HistogramMetricFamily("took", "Seconds.", buckets=[("0.1", value), ("+Inf", 7)], sum_value=9)
    spread = GaugeHistogramMetricFamily("spread", "Sizes.", buckets=[("1", value), ("+Inf", 7)], gsum_value=4)
    return [
        gauge,
        counter,
        CounterMetricFamily("plain", "Without a begin.", value=value),
        timed,
        histogram,
        spread,
        InfoMetricFamily("about", "Constant.", value={"version": "1"}),
        StateSetMetricFamily("state", "One of several.", value={"on": True, "off": False}),
        UnknownMetricFamily("unknown", "Untyped.", value=value),
        SummaryMetricFamily("summed", "Seconds.", count_value=2, sum_value=value),
        GaugeMetricFamily("empty", "Without samples."),
    ]


def test_text_is_the_librarys_also_when_values_change() -> None:
    for value in (1.0, 2.5, 2.5, -3.0):
        assert encode(Given(*metrics(value))) == generate_latest(Given(*metrics(value)))


def test_registry_is_encoded_as_by_the_library() -> None:
    registry = CollectorRegistry()
    Counter("calls", "Calls.", ["caller"], registry=registry).labels("x").inc()
    Histogram("seconds", "Durations.", ["caller"], registry=registry).labels("x").observe(0.3)
    Gauge("now", "No labels.", registry=registry).set(0.1)
    assert encode(registry) == generate_latest(registry)


def test_series_of_other_labels_are_told_apart() -> None:
    gauge = GaugeMetricFamily("gauge", "Values.", labels=["of"])
    for name in ("a", "b"):
        gauge.add_metric([name], 1)
    other = GaugeMetricFamily("other", "Values.", labels=["of"])
    other.add_metric(["a"], 1)
    for _ in range(2):
        lines = encode(Given(gauge, other)).decode().splitlines()
        assert [line for line in lines if line[0] != "#"] == [
            'gauge{of="a"} 1.0',
            'gauge{of="b"} 1.0',
            'other{of="a"} 1.0',
        ]
