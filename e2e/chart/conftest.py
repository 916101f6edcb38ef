import pytest

from gpufleet_e2e.support.chart import Chart
from gpufleet_testbed import Cluster


@pytest.fixture(scope="session")
def chart(cluster: Cluster) -> Chart:
    return Chart(cluster)
