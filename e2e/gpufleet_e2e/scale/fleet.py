"""A cluster with fake nodes: kwok plays their kubelets, one process their agents; the operator is a process here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

from gpufleet_e2e.fakes.process import ProcessSamples
from gpufleet_e2e.scale import programs
from gpufleet_e2e.scale.agents import TELEMETRY, create_telemetry
from gpufleet_e2e.scale.client import AsyncApi, JsonObject, each
from gpufleet_e2e.scale.faults import faults
from gpufleet_e2e.scale.gates import Gates
from gpufleet_e2e.support.api import pods, workloads
from gpufleet_e2e.support.manifests import WorkloadFields, gpuworkload
from gpufleet_testbed import Cluster, repository_root
from gpufleet_testing.operator.synthetic import SyntheticFleet

NODES = "/api/v1/nodes"
NAMESPACE = "scale"
_READY_SECONDS = 180.0
_LONG_SECONDS = 900.0
"""With thousands of workloads on a machine that has other work."""


@dataclass
class FakeFleet:
    """The fleet, whose nodes have eight GPUs each."""

    cluster: Cluster
    api: AsyncApi
    gates: Gates
    nodes: int
    folder: Path
    """Of the processes' output."""

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[ProcessSamples]:
        """Runs the operator; yields the samples of its process."""
        command, kubeconfig = programs.operator_command(), self.cluster.kubeconfig
        with programs.running(command, self.folder / "operator.log", kubeconfig=kubeconfig) as process:
            yield ProcessSamples(process.pid)

    async def submit(self, name: str, **spec: Unpack[WorkloadFields]) -> None:
        """Creates a workload without a Service."""
        body = gpuworkload(name, network={"enableDNSHostnames": False}, **spec)
        await self.api.call("POST", workloads(NAMESPACE), body)

    async def clear(self) -> None:
        """Deletes all workloads, and waits until no pod and no reservation is left."""
        found = await self.api.list(workloads(NAMESPACE))
        await each(found, lambda one: self.api.delete(f"{workloads(NAMESPACE)}/{one['metadata']['name']}"))
        await self.gates.wait(lambda: not self.gates.existing, _LONG_SECONDS)
        async with asyncio.timeout(_LONG_SECONDS):
            while True:
                if not any(one.get("spec", {}).get("assignments") for one in await self.api.list(TELEMETRY)):
                    return
                await asyncio.sleep(0.5)  # a watch of all telemetry would cost more than the operator

    async def faults(self) -> list[str]:
        """Returns what contradicts the ledger now."""
        telemetry = await self.api.list(TELEMETRY)
        return faults(telemetry, await self.api.list(pods(NAMESPACE), "labelSelector=gpufleet.dev/workload"))

    async def wait_for_conditions(self) -> None:
        """Waits until the operator has written the conditions of each node."""
        async with asyncio.timeout(_LONG_SECONDS):
            while True:
                found = [one["status"].get("conditions", []) for one in await self.api.list(TELEMETRY)]
                if sum(any(condition["type"] == "Healthy" for condition in one) for one in found) == self.nodes:
                    return
                await asyncio.sleep(self.nodes / 500)  # a list of all telemetry costs more than many conditions

    async def wait_for_ready(self, count: int) -> None:
        """Waits until so many workloads are Ready."""
        async with asyncio.timeout(_LONG_SECONDS):
            while True:
                found = await self.api.list(workloads(NAMESPACE))
                if sum(_is_ready(one) for one in found) >= count:
                    return
                await asyncio.sleep(0.5 + len(found) / 1000)  # statuses follow the pods by themselves


def _is_ready(workload: JsonObject) -> bool:
    conditions = workload.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@asynccontextmanager
async def fake_fleet(cluster: Cluster, nodes: int, folder: Path) -> AsyncIterator[FakeFleet]:
    """Adds fake nodes to a cluster without gpufleet, and runs kwok and the agents while the block runs."""
    crds = repository_root() / "charts" / "gpufleet" / "files" / "crds"
    await asyncio.to_thread(cluster.kubectl, "apply", "--server-side", f"--filename={crds}")
    await asyncio.to_thread(cluster.kubectl, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    synthetic = SyntheticFleet(nodes, 0, 0, datetime.now(UTC))
    kwok = await asyncio.to_thread(programs.kwok_command, cluster.kubeconfig)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(AsyncApi(cluster.kubeconfig))
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await create_telemetry(api, synthetic)
        await each(range(nodes), lambda number: api.call("POST", NODES, _node(synthetic.node(number))))
        stack.enter_context(programs.running(kwok, folder / "kwok.log"))
        stack.enter_context(programs.running(programs.agents_command(cluster.kubeconfig, nodes), folder / "agents.log"))
        gates = Gates(api, NAMESPACE)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(gates.follow())
            await _wait_for_nodes(api, nodes)
            yield FakeFleet(cluster, api, gates, nodes, folder)
            following.cancel()


def _node(body: JsonObject) -> JsonObject:
    meta = body["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": meta["name"], "labels": meta["labels"], "annotations": programs.FAKE_NODE},
        "spec": body["spec"],
        "status": {"allocatable": body["status"]["allocatable"], "capacity": body["status"]["allocatable"]},
    }


async def _wait_for_nodes(api: AsyncApi, nodes: int) -> None:
    """Waits until the nodes can take pods, and each is reported."""
    async with asyncio.timeout(_LONG_SECONDS):
        while True:
            usable = [node for node in await api.list(NODES) if _takes_pods(node)]
            reported = [one for one in await api.list(TELEMETRY) if "status" in one]
            if len(usable) == nodes and len(reported) == nodes:
                return
            await asyncio.sleep(0.5)


def _takes_pods(node: JsonObject) -> bool:
    fake = programs.FAKE_NODE.items() <= node["metadata"].get("annotations", {}).items()
    keys = {taint["key"] for taint in node["spec"].get("taints", [])}
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", []))
    return fake and ready and not any(key.startswith("node.kubernetes.io/") for key in keys)
