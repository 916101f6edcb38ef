"""One process that plays the agents of a fleet: it reports each node, and confirms what is assigned there.

    python -m gpufleet_e2e.scale.agents KUBECONFIG NODES [HEARTBEAT_SECONDS]

A device is reported as held by the pods that are assigned to it and run. As by its agent, a node is reported when a pod
of it starts or ends, and two seconds after its reservations changed unless it was since, but at most once a second. A
heartbeat after that its Lease is renewed, unless a pod has yet to get its devices or the last report is too old: then
the node is reported again.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_api.names import AGENT_FIELD_MANAGER, REPORT_SECONDS
from gpufleet_e2e.scale.client import APPLY, AsyncApi, JsonObject, each
from gpufleet_testing.operator.synthetic import SyntheticFleet, lease

TELEMETRY = "/apis/gpufleet.dev/v1alpha1/gputelemetries"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
"""Of the operator's namespace, which is the one of its kubeconfig."""
_OF_WORKLOADS = "labelSelector=gpufleet.dev/workload"
_HEARTBEAT_SECONDS = 30.0
_MIN_INTERVAL_SECONDS = 1.0
_UNREPORTED_SECONDS = 2.0
_AT_A_TIME = 16


class Agents:
    """The agents of all nodes.

    Args:
        api: The apiserver, which has a GPUTelemetry of each node.
        fleet: The nodes and their devices.
        heartbeat_seconds: Longest time between two reports of a node or renewals of its Lease.
    """

    def __init__(self, api: AsyncApi, fleet: SyntheticFleet, heartbeat_seconds: float) -> None:
        self._api, self._fleet, self._heartbeat_seconds = api, fleet, heartbeat_seconds
        self._telemetry: dict[str, JsonObject] = {}
        self._running: dict[str, str] = {}
        """Node of each running pod, by uid."""
        self._due: dict[str, None] = {}
        """Nodes to report, in the order in which they became due."""
        self._reported: dict[str, float] = {}
        """When each node was last reported, by the clock of the event loop."""
        self._beaten: dict[str, float] = {}
        """When each node was last reported or its Lease was renewed."""
        self._reports: dict[str, JsonObject] = {}
        """Last report of each node."""
        self._resting: set[str] = set()
        """Nodes whose heartbeat is due."""
        self._generations: dict[str, int] = {}
        """Generation that each node's last report has."""
        self._later: set[str] = set()
        """Nodes to report when the shortest interval is over."""
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
            if before is None:
                self._note(name)
            elif before["metadata"]["generation"] != body["metadata"]["generation"]:
                asyncio.get_running_loop().call_later(_UNREPORTED_SECONDS, self._note_unreported, name)

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
        loop, names = asyncio.get_running_loop(), [self._fleet.node_name(n) for n in range(self._fleet.nodes)]
        # Spread, as agents that have run for a while are.
        for number, name in enumerate(names):
            self._beaten[name] = loop.time() - self._heartbeat_seconds * (1 - number / len(names))
        while True:
            await asyncio.sleep(min(1.0, self._heartbeat_seconds / 10))  # the heartbeat itself
            for name in names:
                if loop.time() - self._beaten[name] >= self._heartbeat_seconds:
                    self._resting.add(name)
                    self._note(name)

    def _note_unreported(self, node: str) -> None:
        if self._telemetry[node]["metadata"]["generation"] != self._generations.get(node):
            self._note(node)

    def _note(self, node: str) -> None:
        self._due[node] = None
        self._wake.set()

    async def _report_due(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._due:
                self._wake.clear()
                await self._wake.wait()
            node = next(iter(self._due))
            del self._due[node]
            resting = node in self._resting
            self._resting.discard(node)
            if resting and self._is_steady(node):
                self._beaten[node] = loop.time()
                await self._renew(node)
                continue
            wait = self._reported.get(node, 0.0) + _MIN_INTERVAL_SECONDS - loop.time()
            if wait > 0:
                if node not in self._later:
                    self._later.add(node)
                    loop.call_later(wait, self._note_later, node)
            elif node in self._telemetry:
                self._reported[node] = self._beaten[node] = loop.time()
                await self.report(node)

    def _note_later(self, node: str) -> None:
        self._later.remove(node)
        self._note(node)

    async def report(self, node: str) -> None:
        """Writes the status of a node, as its agent does."""
        stored, number = self._telemetry[node], int(node.rpartition("-")[2])
        status = self._fleet.telemetry(number, at=datetime.now(UTC))["status"]
        del status["conditions"]  # those are the operator's
        status["assignmentsGeneration"] = self._generations[node] = stored["metadata"]["generation"]
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
        self._reports[node] = status

    def _is_steady(self, node: str) -> bool:
        """Returns whether the last report still holds, and nothing waits for another one."""
        stored, report = self._telemetry.get(node), self._reports.get(node)
        if stored is None or report is None:
            return False
        reported = {holder["podUID"] for device in report["devices"] for holder in device.get("allocatedTo", ())}
        assigned = {one["podUID"] for one in stored.get("spec", {}).get("assignments", [])}
        return (
            asyncio.get_running_loop().time() - self._reported[node] < REPORT_SECONDS
            and self._generations[node] == stored["metadata"]["generation"]
            and assigned == reported
            and assigned <= self._running.keys()
        )

    async def _renew(self, node: str) -> None:
        """Renews the Lease of a node's agent."""
        body = lease(node, self._reports[node]["observedAt"], datetime.now(UTC))
        path = f"{LEASES}/{body['metadata']['name']}?fieldManager={AGENT_FIELD_MANAGER}&force=true"
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
