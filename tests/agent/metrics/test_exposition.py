"""DCGM's counters get their type."""

from collections.abc import Iterable

from prometheus_client.core import UnknownMetricFamily
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
