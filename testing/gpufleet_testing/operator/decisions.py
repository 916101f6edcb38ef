"""Applies decisions on a synthetic fleet to the caches, as if an apiserver had stored them and nothing failed."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

import jsonpatch

from gpufleet_api.names import AGENT_FIELD_MANAGER
from gpufleet_common import timestamps
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube import patches
from gpufleet_operator.model.actions import Actions, ReleasePod, Reserve, WriteStatus
from gpufleet_operator.model.report_actions import ExplainPod
from gpufleet_operator.runtime.jobs import WriteOutcome
from gpufleet_operator.runtime.lanes import Lane
from gpufleet_testing.operator import synthetic
from gpufleet_testing.operator.synthetic import Body, SyntheticFleet


class AppliedDecisions:
    """Stores statuses, reservations, releases and explanations; a synthetic fleet needs no other action."""

    def __init__(self, fleet: SyntheticFleet, cache: Cache) -> None:
        self.fleet, self.cache = fleet, cache
        self.version = 100_000
        self._bodies: dict[str, Body] = {}
        """Pods that were patched, by uid."""

    async def run(
        self, actions: Actions, on_write: Callable[[], None] = lambda: None, pause_seconds: float = 0.0
    ) -> list[WriteOutcome]:
        del on_write
        reports = actions.reports
        others = (actions.services, actions.creates, actions.deletes, actions.evictions, actions.expired)
        unknown = [action for group in (*others, reports.telemetry, reports.nodes) for action in group]
        if unknown:
            raise TypeError(f"unexpected action: {unknown[0]}")
        for reserve in actions.reserves:
            self._reserve(reserve)
        for release in actions.releases:
            self._patch(release)
        for explained in reports.pods:
            self._patch(explained)
        for status in actions.statuses:
            self._status(status)
        return []

    def take_responded(self) -> tuple[list[WriteOutcome], frozenset[str]]:
        return [], frozenset()

    def in_flight(self) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(), frozenset()

    def sent(self) -> dict[Lane, int]:
        return {}

    def room(self, lane: Lane) -> dict[str, int]:
        del lane
        return {}

    def due(self) -> datetime | None:
        return None

    def stored(self) -> Iterator[Body]:
        """Yields the patched pods and the workloads with a status, for `restore`."""
        for body in self._bodies.values():
            yield {"kind": "Pod", **body}
        for uid, workload in self.cache.workloads.items.items():
            if workload.status is not None:
                yield {"kind": "Status", "uid": uid, "status": patches.as_json(workload.status)}

    def restore(self, entries: Iterable[Body]) -> None:
        """Applies the entries of another process to a filled cache."""
        for entry in entries:
            if entry.pop("kind") == "Pod":
                self._bodies[entry["metadata"]["uid"]] = entry
                self.cache.pods.apply(entry)
            else:
                number = int(entry["uid"].rpartition("-")[2])
                body = {**self.fleet.workload(number), "status": entry["status"]}
                body["metadata"]["resourceVersion"] = str(self.next_version())
                self.cache.workloads.apply(body)

    def telemetry(self, node: str, *, celsius: int = 40, at: datetime | None = None) -> None:
        """Applies a report of a node's agent. The reservations and cordoned devices are those that are stored."""
        stored = next(t for t in self.cache.telemetry.items.values() if t.name == node)
        body = self.fleet.telemetry(int(node.rpartition("-")[2]), version=self.next_version(), celsius=celsius, at=at)
        body["metadata"]["generation"] = stored.generation
        body["spec"] = patches.as_json(stored.model.spec)
        self.cache.telemetry.apply(body)

    def renewal(self, node: str, at: datetime) -> None:
        """Applies a renewal of the Lease of a node's agent, which confirms the stored report."""
        status = self.cache.telemetry.by_name[node].status
        assert status is not None
        self.cache.agent_leases.apply(agent_lease(node, status.observed_at, at, version=self.next_version()))

    def lose_reservations(self, at: datetime) -> None:
        """Deletes the GPUTelemetry of all nodes; their agents, which report at `at`, create it again."""
        for number in range(self.fleet.nodes):
            body = self.fleet.telemetry(number, at=at)
            self.cache.telemetry.remove(body["metadata"]["uid"], str(self.next_version()))
            body["metadata"] |= {"generation": 1, "resourceVersion": str(self.next_version())}
            body["spec"]["assignments"] = []
            body["status"]["assignmentsGeneration"] = 1
            self.cache.telemetry.apply(body)

    def _reserve(self, action: Reserve) -> None:
        body = self.fleet.telemetry(int(action.node.rpartition("-")[2]), version=self.next_version())
        body["metadata"]["generation"] = action.generation + 1
        body["spec"]["assignments"] = [patches.as_json(a) for a in action.assignments]
        self.cache.telemetry.apply(body)

    def _patch(self, action: ReleasePod | ExplainPod) -> None:
        if not action.patch:
            return
        number = int(action.name.split("-")[1])
        body = self._bodies.get(action.pod_uid) or self.fleet.pod(number, self.fleet.template_hash(self.cache, number))
        operations = [op for op in action.patch if op["op"] != "test"]
        body = jsonpatch.apply_patch(body, operations)
        body["metadata"]["resourceVersion"] = str(self.next_version())
        self._bodies[action.pod_uid] = body
        self.cache.pods.apply(body)

    def _status(self, action: WriteStatus) -> None:
        stored = self.cache.workloads.items[action.workload_uid]
        number = int(action.name.rpartition("-")[2])
        body = self.fleet.workload(number)
        if stored.model is None:
            raise TypeError(f"{action.name} is invalid")
        spec = stored.model.model_dump(mode="json", by_alias=True, exclude_none=True)["spec"]
        body["spec"] = spec
        body["status"] = patches.as_json(action.status)
        body["metadata"]["resourceVersion"] = str(self.next_version())
        self.cache.workloads.apply(body)

    def next_version(self) -> int:
        """Returns a resource version above all others."""
        self.version += 1
        return self.version


def agent_lease(node: str, observed_at: str, at: datetime, *, version: int = 1) -> Body:
    """Returns the stored Lease of a node's agent, renewed at `at` by the apiserver's clock: see `synthetic.lease`."""
    body = synthetic.lease(node, observed_at, at)
    body["metadata"] |= {
        "uid": f"uid-{node}-lease",
        "resourceVersion": str(version),
        "managedFields": [{"manager": AGENT_FIELD_MANAGER, "time": timestamps.seconds(at)}],
    }
    return body
