"""The namespace of one test: applies workloads, waits for them, verifies them, and checks that nothing is left."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from gpufleet_e2e.proof import WorkloadEvidence, compare, objects
from gpufleet_e2e.proof.api_reader import describe_conditions
from gpufleet_e2e.proof.contract import REPLICA_LABEL, WORKLOAD_LABEL
from gpufleet_e2e.support.api import NAMESPACES, JsonObject, events, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.watchdog import double_allocations, holders_by_kubelets

OWNERS = (
    "/apis/apps/v1/namespaces/{}/deployments",
    "/apis/apps/v1/namespaces/{}/statefulsets",
    "/apis/batch/v1/namespaces/{}/jobs",
)
READY_SECONDS = 40
EVENT_SECONDS = 10
"""Events are recorded in the background, after the status that they explain."""
POLICY_SECONDS = 10
"""The apiserver's policies read a GPUWorkload a moment after it was created."""
GONE_SECONDS = 60
SOURCES_SECONDS = 30
"""A workload is Ready once the kubelet lists its devices, which may be before its containers run."""
FREE_SECONDS = 45
"""After its pod is gone, a device is free once a report of the agent no longer lists a holder: one heartbeat at most.

It takes five seconds more when the pod's end was not reported.
"""


class TestNamespace:
    """A namespace that exists from construction to `clear`."""

    __test__ = False  # pytest collects classes by their names

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name
        self._api = fleet.api
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self._api.create(NAMESPACES, body)
        eventually(self._has_service_account, within=20)

    def apply(self, *manifests: Mapping[str, object]) -> None:
        """Creates GPUWorkloads, one right after the other."""
        for manifest in manifests:
            self._api.create(workloads(self.name), manifest)

    def create_pod(self, body: Mapping[str, object]) -> None:
        """Creates a labeled pod once the apiserver's policies accept it."""
        path = pods(self.name)
        eventually(lambda: self._api.create(path, body, dry_run=True), within=POLICY_SECONDS)
        self._api.create(path, body)

    def wait_running(self, pod: str, within: float) -> None:
        """Waits until a pod of this name is Running."""

        def running() -> None:
            status = self._api.get(f"{pods(self.name)}/{pod}")["status"]
            assert status["phase"] == "Running", f"{pod} is {status}"

        eventually(running, within=within)

    def check_pending(self, pod: str) -> None:
        """Asserts that a pod of this name is Pending."""
        status: JsonObject = self._api.get(f"{pods(self.name)}/{pod}")["status"]
        assert status["phase"] == "Pending", status

    def delete(self, *names: str) -> None:
        """Deletes GPUWorkloads in the background."""
        for name in names:
            self._api.delete(f"{workloads(self.name)}/{name}")

    def workload(self, name: str) -> JsonObject:
        """Reads a GPUWorkload."""
        return self._api.get(f"{workloads(self.name)}/{name}")

    def exists(self, name: str) -> bool:
        """Returns whether there is a GPUWorkload of this name."""
        return self._api.find(f"{workloads(self.name)}/{name}") is not None

    def pods(self, name: str) -> list[JsonObject]:
        """Lists the pods of a workload that are not being deleted, by replica."""
        active = [pod for pod in self.all_pods(name) if "deletionTimestamp" not in pod["metadata"]]
        return sorted(active, key=lambda pod: int(pod["metadata"]["labels"][REPLICA_LABEL]))

    def all_pods(self, name: str) -> list[JsonObject]:
        """Lists the pods of a workload, also those that are being deleted."""
        return self._api.list(pods(self.name), labelSelector=f"{WORKLOAD_LABEL}={name}")

    def pod(self, name: str) -> JsonObject:
        """Reads the only pod of a workload."""
        found = self.pods(name)
        assert len(found) == 1, f"{name} has {len(found)} pods"
        return found[0]

    def event(self, name: str, reason: str, within: float = EVENT_SECONDS) -> str:
        """Waits for an event of the workload with this reason; returns its message."""

        def recorded() -> str:
            about = [one for one in self._api.list(events(self.name)) if one["involvedObject"]["name"] == name]
            found = [one["message"] for one in about if one["reason"] == reason]
            others = sorted({f"{one['reason']}: {one['message']}" for one in about})
            assert found, f"{name} has no event {reason}, but {others}"
            return str(found[-1])

        return eventually(recorded, within=within)

    def reservation(self, name: str) -> JsonObject:
        """Reads the reservation of the only replica of a workload, with its `node`."""
        found = [one for one in self.fleet.assignments(self.name).values() if one["workload"] == name]
        assert len(found) == 1, f"{name} has {len(found)} reservations; {self.describe(name)}"
        return found[0]

    def describe(self, name: str) -> str:
        """Returns all conditions of a workload as text."""
        return f"{self.name}/{name}: {describe_conditions(self.workload(name))}"

    def wait_for(self, name: str, done: Callable[[JsonObject], bool], within: float) -> JsonObject:
        """Waits until `done` accepts the workload and returns it; a failure contains its conditions."""

        def accepted() -> JsonObject:
            found = self.workload(name)
            assert done(found), self.describe(name)
            return found

        return eventually(accepted, within=within)

    def check_placed(self, **replicas: int) -> None:
        """Asserts that workloads without a template have so many Ready and allocated pods."""
        for name, number in replicas.items():
            status = self.workload(name).get("status", {})
            assert status.get("ready") == f"{number}/{number}", self.describe(name)
            assert status.get("allocatedReplicas") == number, self.describe(name)

    def wait_ready(self, *names: str, within: float = READY_SECONDS) -> None:
        """Waits until all of these workloads are Ready."""
        for name in names:
            self.wait_for(name, lambda found: objects.is_true(found, "Ready"), within)

    def wait_condition(self, name: str, kind: str, status: str, reason: str, within: float = 15) -> str:
        """Waits for a condition of this status and reason; returns its message."""

        def reached(found: JsonObject) -> bool:
            condition = objects.condition(found, kind)
            return (condition.get("status"), condition.get("reason")) == (status, reason)

        return str(objects.condition(self.wait_for(name, reached, within), kind)["message"])

    def wait_rejected(self, name: str, reason: str, devices: int, within: float) -> JsonObject:
        """Waits until the workload is not placed and this reason rejects so many devices; returns the explanation.

        The explanation may name other reasons first: after the restart of an agent its telemetry may be stale.
        """

        def rejected() -> JsonObject:
            found = self.workload(name)
            placed = objects.condition(found, "Placed")
            assert (placed.get("status"), placed.get("reason")) == ("False", "NoDevicesAvailable"), self.describe(name)
            assert not objects.is_true(found, "Ready"), self.describe(name)
            explanation: JsonObject = found["status"]["explanation"]
            counts = {one["reason"]: one["devices"] for one in explanation["ineligibleDevices"]}
            assert counts.get(reason) == devices, f"{name} is rejected by {counts}"
            return explanation

        return eventually(rejected, within=within)

    def verify(self, *names: str, within: float = READY_SECONDS) -> dict[str, WorkloadEvidence]:
        """Waits until workloads are Ready, then verifies that every source names the same devices.

        The sources: status, reservation, annotation, environment of the container, PodResources,
        `allocatedResourcesStatus` if kubelets write it, and the claim of a pod that has one. Also verifies that no
        device has two holders.
        """
        self.wait_ready(*names, within=within)
        found = {
            name: self.fleet.collector.complete(self.name, name, timeout_seconds=SOURCES_SECONDS) for name in names
        }
        collector = self.fleet.collector
        problems = compare(list(found.values()), collector.fleet(), sources=collector.sources)
        assert not problems, "; ".join(str(problem) for problem in problems)
        return found

    def devices(self, name: str) -> tuple[str, ...]:
        """Verifies a workload and returns the devices of its only replica."""
        (replica,) = self.verify(name)[name].replicas
        return replica.picked

    def clear(self) -> None:
        """Removes everything and checks the invariants of every test.

        No pod is stuck, no reservation and no device of the namespace is left, no device ever had two holders, and
        neither operator nor agents restarted because of a failure.
        """
        for one in self._api.list(workloads(self.name)):
            self._api.delete(f"{workloads(self.name)}/{one['metadata']['name']}")
        for kind in OWNERS:
            for one in self._api.list(kind.format(self.name)):
                self._api.delete(f"{kind.format(self.name)}/{one['metadata']['name']}")
        for one in self._api.list(pods(self.name)):
            if not one["metadata"].get("ownerReferences"):
                self._api.delete(f"{pods(self.name)}/{one['metadata']['name']}")
        eventually(self._no_pods, within=GONE_SECONDS)
        eventually(self._no_reservations, within=FREE_SECONDS)
        eventually(self._no_holdings, within=FREE_SECONDS)
        self.fleet.watchdog.check()
        assert not double_allocations(holders_by_kubelets(self.fleet.collector.holdings()))
        restarts = self.fleet.operator_restarts()
        assert not any(restarts.values()), f"the operator restarted: {restarts}"
        self._reset_gpus()
        self._api.delete(f"{NAMESPACES}/{self.name}")

    def _reset_gpus(self) -> None:
        """Makes the simulated GPUs idle again, and waits until the operator can see it."""
        changed = [name for name, gpus in self.fleet.gpus.items() if gpus.reset()]
        if changed:
            self.fleet.wait_for_telemetry(datetime.now(UTC))

    def _has_service_account(self) -> None:
        path = f"{NAMESPACES}/{self.name}/serviceaccounts/default"
        assert self._api.find(path), f"{self.name} has no default service account"

    def _no_pods(self) -> None:
        left = [
            f"{one['metadata']['name']} ({one['status'].get('phase')}, gates {one['spec'].get('schedulingGates')})"
            for one in self._api.list(pods(self.name))
        ]
        assert not left, f"pods are stuck: {', '.join(left)}"

    def _no_reservations(self) -> None:
        left = self.fleet.assignments(self.name)
        assert not left, f"reservations leaked: {list(left.values())}"

    def _no_holdings(self) -> None:
        left = [one for one in self.fleet.collector.holdings() if one.namespace == self.name and one.devices]
        assert not left, f"the kubelets still count devices: {left}"
