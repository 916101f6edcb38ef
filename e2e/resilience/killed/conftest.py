from collections.abc import Iterator

import pytest

from gpufleet_e2e.faults.mortal_operator import MortalOperator, mortal_operator
from gpufleet_e2e.support.fleet import Fleet


@pytest.fixture(scope="module")
def operator(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalOperator]:
    """An operator that also writes for autoscalers and to Nodes."""
    fleet.install(operator={"scaleUp": True, "nodeConditions": True})
    with mortal_operator(fleet, tmp_path_factory.mktemp("operator")) as found:
        yield found
    fleet.restore_later()
