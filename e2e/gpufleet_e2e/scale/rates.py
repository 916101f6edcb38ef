"""Rates and latencies of the operator on a fleet of fake nodes: see `bench/operator_rates.py`."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from lightkube.config.kubeconfig import KubeConfig

from gpufleet_e2e.fakes.process import ProcessSamples, quantile
from gpufleet_e2e.scale.agents import TELEMETRY
from gpufleet_e2e.scale.client import each
from gpufleet_e2e.scale.fleet import NAMESPACE, FakeFleet, fake_fleet
from gpufleet_e2e.support.api import pods
from gpufleet_e2e.support.manifests import GATE, plain_pod
from gpufleet_e2e.support.measurements import per_minute, writes
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.writer import ApiWriter
from gpufleet_testbed import Cluster
from gpufleet_testbed.progress import Progress

_LONG_SECONDS = 600.0
_OPERATOR_WRITES = ("pods", "gpufleet.dev/gputelemetries", "gpufleet.dev/gpuworkloads/status", "events")
"""What only the operator writes during a burst, as `support.measurements.writes` names it."""


@dataclass(frozen=True)
class Sizes:
    """What is measured; 0 leaves a part out."""

    nodes: int = 1000
    burst: int = 2000
    rate: float = 20.0
    rate_seconds: float = 30.0
    gang: int = 512
    raw: int = 300
    rest_seconds: float = 60.0


@dataclass
class Rates:
    """One measurement of everything."""

    fleet: FakeFleet
    sizes: Sizes
    progress: Progress
    found: dict[str, Any] = field(default_factory=dict)

    async def run(self) -> dict[str, Any]:
        """Returns the figures, and `faults`: what contradicted the ledger."""
        step = self.progress.step
        if self.sizes.raw:
            with step("reservations and releases without an operator, and binds of plain pods"):
                await self._raw()
                await self._binds()
        async with self.fleet.operator() as process:
            with step("an operator that has reported each node"):
                await self._start()
            with step(f"a burst of {self.sizes.burst} workloads"):
                await self._burst(process.pid)
            with step("the operator at rest"):
                await self._rest(process)
                await self._kubectl()
            os.kill(process.pid, signal.SIGKILL)
        async with self.fleet.operator():
            with step("another operator"):
                await self._restart()
                await self.fleet.clear()
            with step(f"{self.sizes.rate:g} workloads a second"):
                await self._latency()
                await self.fleet.clear()
            with step(f"a gang of {self.sizes.gang} replicas"):
                await self._gang()
            self.found["faults"] += await self.fleet.faults()
        return self.found

    async def _raw(self) -> None:
        """Reserves and releases pods as the operator does, without deciding."""
        config = KubeConfig.from_file(str(self.fleet.cluster.kubeconfig)).get()
        assert config is not None
        api = Api.connect(config, ServerClock())
        writer, names = ApiWriter(api), [f"raw-{number}" for number in range(self.sizes.raw)]
        gates = [{"name": GATE}]
        await each(
            names, lambda name: self.fleet.api.call("POST", pods(NAMESPACE), plain_pod(name, schedulingGates=gates))
        )
        by_node: dict[str, list[str]] = {}
        for number, name in enumerate(names):
            by_node.setdefault(f"node-{number % self.sizes.nodes:05d}", []).append(name)
        generation = {one["metadata"]["name"]: one["metadata"]["generation"] for one in await self._telemetry()}

        async def place(node: str) -> None:
            for index, name in enumerate(by_node[node]):
                swap = {"op": "test", "path": "/metadata/generation", "value": generation[node] + index}
                value = [_assignment(name, index)]
                await writer.patch_telemetry(node, [swap, {"op": "add", "path": "/spec/assignments", "value": value}])
                term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
                required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
                pin = {"op": "add", "path": "/spec/affinity", "value": {"nodeAffinity": required}}
                await writer.patch_pod(NAMESPACE, name, [{"op": "remove", "path": "/spec/schedulingGates/0"}, pin])

        began = monotonic()
        await each(by_node, place)
        self.found["raw_per_second"] = round(len(names) / (monotonic() - began), 1)
        nothing = [{"op": "add", "path": "/spec/assignments", "value": []}]
        await each(by_node, lambda node: writer.patch_telemetry(node, nothing))
        await self._delete_pods(names)
        await api.close()

    async def _binds(self) -> None:
        """Creates plain pods, and watches how fast they are bound."""
        names = [f"plain-{number}" for number in range(self.sizes.raw)]
        fake, tolerated = {"topology.kubernetes.io/zone": "zone-0"}, [{"operator": "Exists"}]

        async def create(name: str) -> None:
            body = plain_pod(name, nodeSelector=fake, tolerations=tolerated)
            await self.fleet.api.call("POST", pods(NAMESPACE), body)

        began = monotonic()
        await each(names, create)
        bound = self.fleet.gates.bound
        await self.fleet.gates.wait(lambda: all(name in bound for name in names), _LONG_SECONDS)
        self.found["binds_per_second"] = round(len(names) / (max(bound[name] for name in names) - began), 1)
        await self._delete_pods(names)

    async def _start(self) -> None:
        began = monotonic()
        await self._first_placement("warm-up")
        await self.fleet.wait_for_conditions()
        self.found["start_seconds"] = round(monotonic() - began, 1)

    async def _burst(self, operator: int) -> None:
        before, samples, began = writes(await self.fleet.api.text("/metrics")), ProcessSamples(operator), monotonic()
        samples.take(began)
        names = [f"burst-{number:05d}" for number in range(self.sizes.burst)]
        await each(names, self.fleet.submit)
        self.found["burst_created_seconds"] = round(monotonic() - began, 2)
        last = await self._released("burst-", len(names))
        self.found["burst_per_second"] = round(len(names) / (last - began), 1)
        await self.fleet.wait_for_ready(len(names))
        self.found["burst_ready_seconds"] = round(monotonic() - began, 1)
        samples.take(monotonic())
        self.found["burst_cpu_ms"] = round(1000 * (samples.cpu_seconds[1] - samples.cpu_seconds[0]) / len(names), 1)
        after = writes(await self.fleet.api.text("/metrics"))
        of_operator = {key: round((after[key] - before[key]) / len(names), 2) for key in _OPERATOR_WRITES}
        self.found["burst_writes"] = of_operator
        self.found["faults"] = await self.fleet.faults()

    async def _rest(self, process: ProcessSamples) -> None:
        before, began = writes(await self.fleet.api.text("/metrics")), monotonic()
        process.take(began)
        await asyncio.sleep(self.sizes.rest_seconds)  # the measurement itself
        process.take(monotonic())
        grown = per_minute(before, writes(await self.fleet.api.text("/metrics")), monotonic() - began)
        self.found["rest_writes_per_minute"] = {
            key: value for key, value in grown.items() if key.startswith(("gpufleet.dev/", "pods"))
        }
        self.found["rest_cpu_percent"] = round(process.cpu_percent, 1)
        self.found["rss_mib"] = round(process.rss_mib[-1], 1)

    async def _kubectl(self) -> None:
        seconds = {}
        for kind in ("gpuworkloads", "gputelemetries"):
            began = monotonic()
            await asyncio.to_thread(self.fleet.cluster.kubectl, "get", kind, "--all-namespaces")
            seconds[kind] = round(monotonic() - began, 2)
        self.found["kubectl_get_seconds"] = seconds

    async def _restart(self) -> None:
        self.found["restart_seconds"] = round(await self._first_placement("after-restart"), 2)

    async def _first_placement(self, name: str) -> float:
        began = monotonic()
        await self.fleet.submit(name)
        return await self._released(name, 1) - began

    async def _latency(self) -> None:
        created: dict[str, float] = {}
        count, began = int(self.sizes.rate * self.sizes.rate_seconds), monotonic()

        async def submit(number: int) -> None:
            name = f"steady-{number:05d}"
            await asyncio.sleep(max(0.0, began + number / self.sizes.rate - monotonic()))
            created[name] = monotonic()
            await self.fleet.submit(name)

        await each(range(count), submit, at_a_time=count)
        await self._released("steady-", count)
        released = self.fleet.gates.released_of("steady-")
        waited = sorted(at - created[self.fleet.gates.workload[pod]] for pod, at in released.items())
        self.found["latency_p50_seconds"] = round(quantile(waited, 0.5), 3)
        self.found["latency_p99_seconds"] = round(quantile(waited, 0.99), 3)

    async def _gang(self) -> None:
        began = monotonic()
        await self.fleet.submit("gang", replicas=self.sizes.gang, count=8, placement={"gang": True})
        self.found["gang_seconds"] = round(await self._released("gang", self.sizes.gang) - began, 2)

    async def _released(self, prefix: str, count: int) -> float:
        """Waits until so many pods are released; returns when the last one was."""
        gates = self.fleet.gates
        await gates.wait(lambda: len(gates.released_of(prefix)) >= count, _LONG_SECONDS)
        return max(gates.released_of(prefix).values())

    async def _telemetry(self) -> Sequence[dict[str, Any]]:
        return await self.fleet.api.list(TELEMETRY)

    async def _delete_pods(self, names: Sequence[str]) -> None:
        await each(names, lambda name: self.fleet.api.delete(f"{pods(NAMESPACE)}/{name}?gracePeriodSeconds=0"))
        await self.fleet.gates.wait(lambda: self.fleet.gates.existing.isdisjoint(names), _LONG_SECONDS)


def _assignment(pod: str, index: int) -> dict[str, Any]:
    return {
        "podUID": f"uid-{pod}",
        "namespace": NAMESPACE,
        "pod": pod,
        "container": "main",
        "workload": pod,
        "workloadUID": f"uid-{pod}",
        "replica": 0,
        "replicas": 1,
        "resource": "gpufleet.dev/gpu",
        "devices": [f"GPU-{index}"],
        "decidedAt": "2026-01-02T03:04:05.000000Z",
    }


async def measure(cluster: Cluster, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Returns the figures of a cluster without gpufleet, and reports its progress to stderr."""
    progress = Progress()
    async with AsyncExitStack() as stack:
        with progress.step(f"{sizes.nodes} nodes are Ready and reported"):
            fleet = await stack.enter_async_context(fake_fleet(cluster, sizes.nodes, folder))
        return await Rates(fleet, sizes, progress).run()
