"""One process that plays the agents of a fleet: it reports each node, and confirms what is assigned there.

    python -m gpufleet_e2e.scale.agents KUBECONFIG NODES [HEARTBEAT_SECONDS]

A device is reported as held by the pods that are assigned to it and run. Each node is reported at every heartbeat, when
its reservations change, and when a pod of it starts or ends.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_e2e.scale.client import APPLY, AsyncApi, JsonObject, each
from gpufleet_testing.operator.synthetic import SyntheticFleet

TELEMETRY = "/apis/gpufleet.dev/v1alpha1/gputelemetries"
_OF_WORKLOADS = "labelSelector=gpufleet.dev/workload"
_HEARTBEAT_SECONDS = 30.0
_AT_A_TIME = 16


class Agents:
    """The agents of all nodes.

    Args:
        api: The apiserver, which has a GPUTelemetry of each node.
        fleet: The nodes and their devices.
        heartbeat_seconds: Longest time between two reports of a node.
    """

    def __init__(self, api: AsyncApi, fleet: SyntheticFleet, heartbeat_seconds: float) -> None:
        self._api, self._fleet, self._heartbeat_seconds = api, fleet, heartbeat_seconds
        self._telemetry: dict[str, JsonObject] = {}
        self._running: dict[str, str] = {}
        """Node of each running pod, by uid."""
        self._due: dict[str, None] = {}
        """Nodes to report, in the order in which they became due."""
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_telemetry(self._api.watch(TELEMETRY)))
            tasks.create_task(self._follow_pods(self._api.watch("/api/v1/pods", _OF_WORKLOADS)))
            tasks.create_task(self._heartbeats())
            for _ in range(_AT_A_TIME):
                tasks.create_task(self._report_due())

    async def _follow_telemetry(self, events: AsyncIterator[tuple[str, JsonObject]]) -> None:
        async for _, body in events:
            name, before = body["metadata"]["name"], self._telemetry.get(body["metadata"]["name"])
            self._telemetry[name] = body
            if before is None or before["metadata"]["generation"] != body["metadata"]["generation"]:
                self._note(name)

    async def _follow_pods(self, events: AsyncIterator[tuple[str, JsonObject]]) -> None:
        async for kind, body in events:
            uid, node = body["metadata"]["uid"], body["spec"].get("nodeName")
            runs = kind != "DELETED" and body.get("status", {}).get("phase") == "Running"
            if node and runs != (uid in self._running):
                if runs:
                    self._running[uid] = node
                else:
                    del self._running[uid]
                self._note(node)

    async def _heartbeats(self) -> None:
        pause = self._heartbeat_seconds / max(1, self._fleet.nodes)
        while True:
            for number in range(self._fleet.nodes):
                await asyncio.sleep(pause)  # the heartbeat itself
                self._note(self._fleet.node_name(number))

    def _note(self, node: str) -> None:
        self._due[node] = None
        self._wake.set()

    async def _report_due(self) -> None:
        while True:
            while not self._due:
                self._wake.clear()
                await self._wake.wait()
            node = next(iter(self._due))
            del self._due[node]
            if node in self._telemetry:
                await self.report(node)

    async def report(self, node: str) -> None:
        """Writes the status of a node, as its agent does."""
        stored, number = self._telemetry[node], int(node.rpartition("-")[2])
        status = self._fleet.telemetry(number, at=datetime.now(UTC))["status"]
        del status["conditions"]  # those are the operator's
        status["assignmentsGeneration"] = stored["metadata"]["generation"]
        held: dict[str, list[JsonObject]] = {}
        for one in stored.get("spec", {}).get("assignments", []):
            if one["podUID"] in self._running:
                holder = {key: one[key] for key in ("namespace", "pod", "container", "podUID")}
                for uuid in one["devices"]:
                    held.setdefault(uuid, []).append(holder)
        for device in status["devices"]:
            if device["uuid"] in held:
                device["allocatedTo"] = held[device["uuid"]]
                device["processCount"] = 1
        status["summary"]["allocated"] = len(held)
        body = {
            "apiVersion": "gpufleet.dev/v1alpha1",
            "kind": "GPUTelemetry",
            "metadata": {"name": node},
            "status": status,
        }
        path = f"{TELEMETRY}/{node}/status?fieldManager=gpufleet-agent&force=true"
        await self._api.call("PATCH", path, body, APPLY)


async def create_telemetry(api: AsyncApi, fleet: SyntheticFleet) -> None:
    """Creates a GPUTelemetry without a status for each node."""

    async def create(number: int) -> None:
        body = {
            "apiVersion": "gpufleet.dev/v1alpha1",
            "kind": "GPUTelemetry",
            "metadata": {"name": fleet.node_name(number)},
            "spec": {},
        }
        await api.call("POST", TELEMETRY, body)

    await each(range(fleet.nodes), create)


async def _main(kubeconfig: Path, nodes: int, heartbeat_seconds: float) -> None:
    async with AsyncApi(kubeconfig) as api:
        await Agents(api, SyntheticFleet(nodes, 0, 0, datetime.now(UTC)), heartbeat_seconds).run()


if __name__ == "__main__":
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else _HEARTBEAT_SECONDS
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2]), seconds))
