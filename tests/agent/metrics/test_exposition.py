"""Series are encoded as the library does, only faster; DCGM's counters get their type."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.metrics.exposition import encode

LABELS = ("UUID", "pod", "container")
VALUES = st.one_of(st.floats(), st.integers(-(2**53), 2**53), st.booleans())
SAMPLES = st.lists(st.tuples(st.tuples(*(st.text() for _ in LABELS)), VALUES), max_size=4)
PLAIN = (GaugeMetricFamily, CounterMetricFamily, UnknownMetricFamily)


class Given(Collector):
    def __init__(self, *metrics: Metric) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self.metrics


@given(kind=st.sampled_from(PLAIN), help_text=st.text(), samples=SAMPLES)
def test_the_text_is_that_of_the_library(
    kind: type[GaugeMetricFamily | CounterMetricFamily | UnknownMetricFamily],
    help_text: str,
    samples: list[tuple[tuple[str, ...], float]],
) -> None:
    metric = kind("gpufleet_test", help_text, labels=LABELS)
    for labels, value in samples:
        metric.add_metric(labels, value)
    assert encode(Given(metric)) == generate_latest(Given(metric))


def test_other_kinds_of_series_are_the_librarys() -> None:
    registry = CollectorRegistry()
    Histogram("seconds", "Duration.", ["caller"], registry=registry).labels("Poll").observe(0.3)
    stamped = GaugeMetricFamily("stamped", "With a time.", labels=["a"])
    stamped.add_metric(["1"], 2, timestamp=3.5)
    created = CounterMetricFamily("done", "With its begin.", labels=["a"])
    created.add_metric(["1"], 2, created=3.5)
    others = Given(
        stamped,
        created,
        GaugeMetricFamily("unlabeled", "One sample.", 4),
        InfoMetricFamily("build", "Labels.", {"version": "1"}),
        StateSetMetricFamily("state", "States.", {"on": True, "off": False}),
        GaugeHistogramMetricFamily("sizes", "Buckets.", buckets=[("1", 2), ("+Inf", 3)], gsum_value=4),
    )
    assert encode(others) == generate_latest(others)
    assert encode(registry) == generate_latest(registry)


def test_a_counter_of_dcgm_has_its_type_and_no_suffix() -> None:
    energy = UnknownMetricFamily("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Energy.", labels=["gpu"])
    energy.add_metric(["0"], 12)
    assert encode(Given(energy)).decode().splitlines() == [
        "# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Energy.",
        "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter",
        'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0"} 12.0',
    ]
