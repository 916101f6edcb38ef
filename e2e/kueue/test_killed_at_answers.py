"""The operator is killed before and after its answers to Kueue, and the end is that without kills (I6)."""

from collections.abc import Iterator

import pytest

from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.lives import BOTH, Life, Stage, check_life, ready
from gpufleet_e2e.faults.mortal_operator import MortalOperator, mortal_operator
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.kueue_queue import QUEUE, QUEUE_LABEL, Queue
from gpufleet_e2e.support.sandbox import TestNamespace


@pytest.fixture(scope="module")
def operator(installed: None, fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalOperator]:
    """An operator that answers checks. Kueue is there before it, and the queue after it."""
    del installed
    fleet.install(operator={"kueue": True, "nodeConditions": True})
    with mortal_operator(fleet, tmp_path_factory.mktemp("operator")) as found:
        yield found


def is_admitted(stage: Stage, queue: Queue) -> None:
    """The check becomes active once more, and a workload waits for its answer."""
    queue.deactivate_check()
    eventually(queue.check_active, within=stage.within)
    body = gpuworkload(stage.name, count=2, node=stage.node)
    body["metadata"]["labels"] = {QUEUE_LABEL: QUEUE}
    stage.namespace.apply(body)


def test_kills_at_answers_to_kueue_lead_to_the_same_end(
    operator: MortalOperator, queue: Queue, namespace: TestNamespace, fleet: Fleet
) -> None:
    kills = {writes.ACTIVATE_CHECK: BOTH, writes.ANSWER_CHECK: BOTH}
    life = Life(kills, lambda stage: is_admitted(stage, queue), ready)
    check_life(namespace, operator, life, fleet.nodes[1])
    eventually(lambda: _is_returned(queue), within=30)


def _is_returned(queue: Queue) -> None:
    assert not queue.used, f"{queue.used} in use"
