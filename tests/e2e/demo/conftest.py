import pytest

from gpufleet_e2e.proof import FleetEvidence, WorkloadEvidence
from gpufleet_testing.demo_evidence import make_fleet, make_sharers, make_workload


@pytest.fixture
def fleet() -> FleetEvidence:
    return make_fleet()


@pytest.fixture
def sharers() -> tuple[list[WorkloadEvidence], FleetEvidence]:
    return make_sharers()


@pytest.fixture
def workload() -> WorkloadEvidence:
    return make_workload()
