"""One test's namespace: workloads are applied here, waited for, proven, and at the end nothing may be left of them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from gpufleet_e2e.proof import WorkloadEvidence, compare, objects
from gpufleet_e2e.proof.api_reader import conditions_in_words
from gpufleet_e2e.proof.contract import REPLICA_LABEL, WORKLOAD_LABEL
from gpufleet_e2e.support.api import NAMESPACES, JsonObject, events, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.watchdog import by_kubelets, twice

READY_SECONDS = 40
GONE_SECONDS = 40
FREE_SECONDS = 45
"""After its pod is gone, a device is free once the agent's next report no longer shows it held: one heartbeat at most.

And five seconds later when nobody has said that the pod is over.
"""


class Room:
    """A namespace that exists from construction to `clear`."""

    def __init__(self, fleet: Fleet, namespace: str) -> None:
        self.fleet = fleet
        self.namespace = namespace
        self._api = fleet.api
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        self._api.create(NAMESPACES, body)
        eventually(self._has_service_account, within=20)

    def apply(self, *manifests: Mapping[str, object]) -> None:
        """Create GPUWorkloads, one right after the other."""
        for manifest in manifests:
            self._api.create(workloads(self.namespace), manifest)

    def delete(self, *names: str) -> None:
        """Delete GPUWorkloads in the background."""
        for name in names:
            self._api.delete(f"{workloads(self.namespace)}/{name}")

    def workload(self, name: str) -> JsonObject:
        """The GPUWorkload."""
        return self._api.get(f"{workloads(self.namespace)}/{name}")

    def pods(self, name: str) -> list[JsonObject]:
        """The workload's pods that aren't being deleted, by replica."""
        live = [pod for pod in self.every_pod(name) if "deletionTimestamp" not in pod["metadata"]]
        return sorted(live, key=lambda pod: int(pod["metadata"]["labels"][REPLICA_LABEL]))

    def every_pod(self, name: str) -> list[JsonObject]:
        """As `pods`, with those that are being deleted."""
        return self._api.list(pods(self.namespace), labelSelector=f"{WORKLOAD_LABEL}={name}")

    def pod(self, name: str) -> JsonObject:
        """The only pod of a workload."""
        found = self.pods(name)
        assert len(found) == 1, f"{name} has {len(found)} pods"
        return found[0]

    def event(self, name: str, reason: str) -> str:
        """The message of the workload's event with this reason."""
        found = [
            one["message"]
            for one in self._api.list(events(self.namespace))
            if one["involvedObject"]["name"] == name and one["reason"] == reason
        ]
        assert found, f"{name} has no event {reason}"
        return str(found[-1])

    def reserved(self, name: str) -> JsonObject:
        """The reservation of the only replica of a workload, with its `node`."""
        found = [one for one in self.fleet.assignments(self.namespace).values() if one["workload"] == name]
        assert len(found) == 1, f"{name} has {len(found)} reservations; {self.words(name)}"
        return found[0]

    def words(self, name: str) -> str:
        """All conditions of a workload."""
        return f"{self.namespace}/{name}: {conditions_in_words(self.workload(name))}"

    def wait_for(self, name: str, done: Callable[[JsonObject], bool], within: float) -> JsonObject:
        """The workload as soon as it is as wanted; else a failure with its conditions."""

        def look() -> JsonObject:
            found = self.workload(name)
            assert done(found), self.words(name)
            return found

        return eventually(look, within=within)

    def wait_ready(self, *names: str, within: float = READY_SECONDS) -> None:
        """Wait until all of these workloads are Ready."""
        for name in names:
            self.wait_for(name, lambda found: objects.is_true(found, "Ready"), within)

    def wait_condition(self, name: str, kind: str, status: str, reason: str, within: float = 15) -> str:
        """Wait for a condition of this status and reason; returns its message."""

        def said(found: JsonObject) -> bool:
            condition = objects.condition(found, kind)
            return (condition.get("status"), condition.get("reason")) == (status, reason)

        return str(objects.condition(self.wait_for(name, said, within), kind)["message"])

    def proven(self, *names: str, within: float = READY_SECONDS) -> dict[str, WorkloadEvidence]:
        """Wait until workloads are Ready, then prove that every source names the same devices.

        The sources: status, reservation, annotation, environment of the container, PodResources and
        `allocatedResourcesStatus`. And no device has two holders.
        """
        self.wait_ready(*names, within=within)
        found = {name: self.fleet.witness.settled(self.namespace, name, timeout_seconds=10) for name in names}
        problems = compare(list(found.values()), self.fleet.witness.fleet())
        assert not problems, "; ".join(str(problem) for problem in problems)
        return found

    def devices(self, name: str) -> tuple[str, ...]:
        """The devices of the only replica of a proven workload."""
        (replica,) = self.proven(name)[name].replicas
        return replica.picked

    def clear(self) -> None:
        """Remove everything and check what must hold at the end of every test.

        No pod is stuck, no reservation and no device of the namespace is left, nobody saw a device in two hands, and
        neither operator nor agents were restarted by a failure of their own.
        """
        for one in self._api.list(workloads(self.namespace)):
            self._api.delete(f"{workloads(self.namespace)}/{one['metadata']['name']}")
        for one in self._api.list(pods(self.namespace)):
            if WORKLOAD_LABEL not in one["metadata"].get("labels", {}):
                self._api.delete(f"{pods(self.namespace)}/{one['metadata']['name']}")
        eventually(self._no_pods, within=GONE_SECONDS)
        eventually(self._no_reservations, within=FREE_SECONDS)
        eventually(self._no_holdings, within=FREE_SECONDS)
        self.fleet.watchdog.check()
        assert not twice(by_kubelets(self.fleet.witness.holdings()))
        restarts = self.fleet.operator_restarts()
        assert not any(restarts.values()), f"the operator was restarted: {restarts}"
        self._cool_down()
        self._api.delete(f"{NAMESPACES}/{self.namespace}")

    def _cool_down(self) -> None:
        """Bring the simulated GPUs back to rest, and wait until the operator can know it."""
        changed = [name for name, gpus in self.fleet.gpus.items() if gpus.reset()]
        if changed:
            self.fleet.wait_for_telemetry(datetime.now(UTC))

    def _has_service_account(self) -> None:
        path = f"{NAMESPACES}/{self.namespace}/serviceaccounts/default"
        assert self._api.find(path), f"{self.namespace} has no default service account"

    def _no_pods(self) -> None:
        left = [
            f"{one['metadata']['name']} ({one['status'].get('phase')}, gates {one['spec'].get('schedulingGates')})"
            for one in self._api.list(pods(self.namespace))
        ]
        assert not left, f"pods that are stuck: {', '.join(left)}"

    def _no_reservations(self) -> None:
        left = self.fleet.assignments(self.namespace)
        assert not left, f"reservations that were leaked: {list(left.values())}"

    def _no_holdings(self) -> None:
        left = [one for one in self.fleet.witness.holdings() if one.namespace == self.namespace and one.devices]
        assert not left, f"devices that the kubelets still count: {left}"
