"""A burst on an apiserver that serves one request after the other. Time is virtual."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gpufleet_operator.model.actions import Actions
from gpufleet_operator.runtime.executor import PATIENCE_SECONDS
from gpufleet_operator.runtime.pacing.held_statuses import HOLD
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess

REQUESTS_PER_SECOND = 40
BURST = 48
STEP_SECONDS = 0.05


class BusyCluster(FakeCluster):
    def __init__(self, nodes: int, devices: int) -> None:
        super().__init__(nodes, devices)
        self.requests: Counter[str] = Counter()
        self._turn = asyncio.Lock()

    async def _serve(self, name: str) -> None:
        self.requests[name] += 1
        async with self._turn:
            await asyncio.sleep(1 / REQUESTS_PER_SECOND)

    async def create_pod(self, body: Mapping[str, Any]) -> Json:
        await self._serve("create pod")
        return await super().create_pod(body)

    async def patch_pod(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        await self._serve("patch pod")
        return await super().patch_pod(namespace, name, patch)

    async def patch_telemetry(self, node: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        await self._serve("patch telemetry")
        return await super().patch_telemetry(node, patch)

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        await self._serve("patch status")
        return await super().patch_workload_status(namespace, name, patch)


def note_decisions(operator: OperatorProcess) -> list[Actions]:
    """Returns a list of the decisions from now on."""
    found: list[Actions] = []
    decide = operator.reconciler.decide_once

    def noted() -> Actions:
        found.append(decide())
        return found[-1]

    operator.reconciler.decide_once = noted  # type: ignore[method-assign]  # counts what is decided
    return found


async def run_until_released(cluster: BusyCluster, operator: OperatorProcess, pods: int) -> None:
    loop = asyncio.get_running_loop()
    began, clock = loop.time(), cluster.now
    while len(cluster.released) < pods:
        assert loop.time() - began < 10 * pods / REQUESTS_PER_SECOND
        operator.hear(10_000)
        await operator.act()
        await asyncio.sleep(STEP_SECONDS)
        cluster.now = clock
        cluster.advance(loop.time() - began)


def started(cluster: BusyCluster, *, checked: bool) -> OperatorProcess:
    return OperatorProcess(cluster, patience=PATIENCE_SECONDS, report_patience=0, hold_statuses=HOLD, checked=checked)


@in_virtual_time
async def test_gang_with_more_reservations_than_a_pass_sends_is_released() -> None:
    """They have to be stored at the same time. Those that a pass does not send would be picked again, and proved."""
    cluster = BusyCluster(nodes=2 * REQUESTS_PER_SECOND, devices=1)
    operator = started(cluster, checked=False)
    gang = len(cluster.kubelets)
    cluster.submit("gang", replicas=gang, placement={"gang": True})

    await run_until_released(cluster, operator, gang)

    assert cluster.requests["create pod"] == cluster.requests["patch telemetry"] == gang
    invariants.check_always(cluster)


@in_virtual_time
async def test_burst_is_decided_and_written_once() -> None:
    """What a pass does not send is decided on again, and reservations are proved again for releases that it drops."""
    cluster = BusyCluster(nodes=6, devices=8)
    operator = started(cluster, checked=True)
    decisions = note_decisions(operator)
    for number in range(BURST):
        cluster.submit(f"w-{number:02d}")

    await run_until_released(cluster, operator, BURST)

    assert cluster.requests["create pod"] == cluster.requests["patch pod"] == BURST
    assert cluster.requests["patch telemetry"] <= BURST
    assert cluster.requests["patch status"] <= BURST // 2, "only of pods that no scheduler binds for two seconds"
    assert sum(len(one.creates) for one in decisions) <= 3 * BURST
    invariants.check_always(cluster)
