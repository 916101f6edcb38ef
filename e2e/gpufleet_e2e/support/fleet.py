"""The installed product: two nodes with simulated GPUs, their agents, and the operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from prometheus_client.parser import text_string_to_metric_families

from gpufleet_api.names import RESOURCE
from gpufleet_e2e.proof import EvidenceCollector, objects
from gpufleet_e2e.support.api import NODES, TELEMETRY, Api, JsonObject, pods
from gpufleet_e2e.support.gpus import Gpus
from gpufleet_e2e.support.install import NAMESPACE, RELEASE, install
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.watchdog import Watchdog
from gpufleet_testbed import Cluster, Node

DAEMONSETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
AGENTS = f"{DAEMONSETS}/{RELEASE}-agent"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
LEASE = f"{LEASES}/gpufleet-operator"
OPERATOR = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{RELEASE}-operator"
COMPONENT = "app.kubernetes.io/component"
OPERATOR_PROCESS = "gpufleet-operator"[:15]
"""The kernel cuts names of processes."""
READY_SECONDS = 60


@dataclass
class Leftover:
    """Whether the installation still has values of tests that have ended."""

    exists: bool = False


@dataclass(frozen=True)
class Fleet:
    """Handles of the installed product. `gpus` is keyed by node name."""

    cluster: Cluster
    api: Api
    collector: EvidenceCollector
    watchdog: Watchdog
    gpus: dict[str, Gpus]
    leftover: Leftover = field(default_factory=Leftover)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Node names, the node with the most GPUs first."""
        return tuple(self.gpus)

    def install(
        self,
        agent_args: Sequence[str] = (),
        agent: Mapping[str, object] | None = None,
        operator: Mapping[str, object] | None = None,
        values: Mapping[str, object] | None = None,
    ) -> None:
        """Installs the chart with the tests' values and waits until every agent reports its node's GPUs.

        Args:
            agent_args: Additional arguments of every agent.
            agent: Additional values of the chart's agent.
            operator: Additional values of the chart's operator.
            values: Additional values of the chart.
        """
        since = datetime.now(UTC)
        self.leftover.exists = False
        install(self.cluster, agent_args=agent_args, agent=agent, operator=operator, values=values)
        self.wait_for_telemetry(since, resource=str((values or {}).get("resource", RESOURCE)))

    def restore_later(self) -> None:
        """Has the tests' values installed before the next test, unless that installs the chart with its own."""
        self.leftover.exists = True

    def restore(self) -> None:
        """Installs the tests' values if others are left."""
        if self.leftover.exists:
            self.install()

    def replace_agents(self) -> None:
        """Replaces every agent's pod; the new one starts on the driver as it is now."""
        since = datetime.now(UTC)
        for node in self.nodes:
            self.api.delete(f"{pods(NAMESPACE)}/{self.agent_pod(node)['metadata']['name']}", grace=0)
        self.wait_for_telemetry(since)

    def wait_for_telemetry(self, since: datetime, resource: str = RESOURCE) -> None:
        """Waits until every node's telemetry is later than `since` and lists its GPUs, and the kubelet offers them.

        The agents are those of the installed chart, and ready: one that is replaced may still report while it ends.
        """
        eventually(self._agents_are_current, within=READY_SECONDS)
        for name, gpus in self.gpus.items():
            eventually(partial(self._reports, name, gpus, since, resource), within=READY_SECONDS)

    def telemetry(self, node: str) -> JsonObject:
        """Reads the node's GPUTelemetry."""
        return self.api.get(f"{TELEMETRY}/{node}")

    def check_healthy(self, node: str, uuid: str) -> None:
        """Asserts that the agent reports a GPU as healthy."""
        healthy = [gpu.uuid for gpu in objects.gpus(self.telemetry(node)) if gpu.healthy]
        assert uuid in healthy, f"{node} does not report {uuid} as healthy"

    def check_readings(self, node: str, uuid: str, **readings: int) -> None:
        """Asserts that telemetry has these readings of a device, such as `utilization_percent=60`."""
        found = next(gpu for gpu in objects.gpus(self.telemetry(node)) if gpu.uuid == uuid)
        reported = {name: getattr(found, name) for name in readings}
        assert reported == readings, f"{uuid} reports {reported}"

    def assignments(self, namespace: str | None = None) -> dict[str, JsonObject]:
        """Reads the reservations of all nodes, or of one namespace, by pod UID, each with its `node`."""
        return {
            assignment["podUID"]: {**assignment, "node": telemetry["metadata"]["name"]}
            for telemetry in self.collector.telemetry()
            for assignment in telemetry.get("spec", {}).get("assignments", [])
            if namespace in (None, assignment["namespace"])
        }

    def allocatable(self, node: str, resource: str = "gpufleet.dev/gpu") -> int:
        """Reads how many devices the Node object offers."""
        return int(self.api.get(f"{NODES}/{node}")["status"]["allocatable"].get(resource, "0"))

    def agent_pod(self, node: str) -> JsonObject:
        """Reads the agent's pod on a node; one that is being deleted does not count."""
        return self._pod("agent", node)

    def operator_pod(self) -> JsonObject:
        """Reads the operator's pod; one that is being deleted does not count."""
        return self._pod("operator")

    def operator_pods(self) -> list[JsonObject]:
        """Reads the pods of all operators; those that are being deleted do not count."""
        return self._active_pods("operator")

    def operator_restarts(self) -> dict[str, int]:
        """Reads how often the operator's container restarted, by pod UID."""
        return {
            pod["metadata"]["uid"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
            for pod in self._pods("operator")
        }

    def move_operator_from(self, node: str) -> None:
        """Replaces the operator's pod if it runs on this node; the new one is ready on another."""
        if self.operator_pod()["spec"]["nodeName"] != node:
            return
        self.api.patch(f"{NODES}/{node}", {"spec": {"unschedulable": True}})
        try:
            self.api.delete(f"{pods(NAMESPACE)}/{self.operator_pod()['metadata']['name']}")
            eventually(lambda: _ready(self.operator_pod()), within=READY_SECONDS)
        finally:
            self.api.patch(f"{NODES}/{node}", {"spec": {"unschedulable": None}})

    def stop_operator(self) -> None:
        """Scales the operator to zero and kills it with SIGKILL, so that it cannot finish anything.

        Its Lease is deleted, for which the next one would wait.
        """
        self.api.patch(f"{OPERATOR}/scale", {"spec": {"replicas": 0}})
        for pod in self._pods("operator"):
            self.api.delete(f"{pods(NAMESPACE)}/{pod['metadata']['name']}", grace=0)
        eventually(self._no_operator, within=READY_SECONDS)
        if self.api.find(LEASE):
            self.api.delete(LEASE)

    def start_operator(self) -> None:
        """Scales the operator to one and waits until it is ready."""
        self.api.patch(f"{OPERATOR}/scale", {"spec": {"replicas": 1}})
        eventually(lambda: _ready(self.operator_pod()), within=READY_SECONDS)

    def agent_metric(self, node: str, name: str, **labels: str) -> float:
        """Reads the agent's metrics; returns the sum of the samples of this name that have these labels."""
        return self._metric(f"{self.agent_pod(node)['metadata']['name']}:9400", name, labels)

    def _metric(self, endpoint: str, name: str, labels: Mapping[str, str]) -> float:
        page = self.api.text(f"{pods(NAMESPACE)}/{endpoint}/proxy/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def operator_metric(self, name: str, **labels: str) -> float:
        """Reads the operator's metrics, as `agent_metric` does those of an agent."""
        return self._metric(f"{self.operator_pod()['metadata']['name']}:8080", name, labels)

    def registrations(self, node: str, resource: str = RESOURCE) -> float:
        """Reads how often the running agent has registered a resource with its kubelet."""
        return self.agent_metric(node, "gpufleet_agent_registrations_total", resource=resource, outcome="Registered")

    def agent_process(self, node: str) -> int:
        """Returns the agent's process ID inside its node."""
        found = self.node(node).run(["pgrep", "-x", "gpufleet-agent"]).stdout.split()
        assert len(found) == 1, f"agent processes on {node}: {found}"
        return int(found[0])

    def freeze_agent(self, node: str) -> None:
        """Stops the agent with SIGSTOP: it neither reports nor answers."""
        self.node(node).run(["kill", "-STOP", str(self.agent_process(node))])

    def thaw_agent(self, node: str) -> None:
        """Continues a frozen agent."""
        self.node(node).run(["kill", "-CONT", str(self.agent_process(node))])

    def processes(self, node: str, pod: JsonObject) -> tuple[int, int]:
        """Finds both processes of the pod's sleeping container in the node's PID namespace, by a variable of theirs."""
        host = pod["spec"].get("hostname", pod["metadata"]["name"])
        listed = self.node(node).run(["sh", "-c", f"grep -lszx HOSTNAME={host} /proc/[0-9]*/environ"], check=False)
        found = tuple(int(path.split("/")[2]) for path in listed.stdout.split())
        assert len(found) == 2, f"processes of {host}: {found} {listed.stderr}"
        return found[0], found[1]

    def node(self, name: str) -> Node:
        """Returns the node's handle."""
        return self.cluster.node(name)

    def _pods(self, component: str) -> list[JsonObject]:
        return self.api.list(pods(NAMESPACE), labelSelector=f"{COMPONENT}={component}")

    def _active_pods(self, component: str) -> list[JsonObject]:
        return [pod for pod in self._pods(component) if "deletionTimestamp" not in pod["metadata"]]

    def _pod(self, component: str, node: str | None = None) -> JsonObject:
        found = [pod for pod in self._active_pods(component) if node in (None, pod["spec"].get("nodeName"))]
        assert len(found) == 1, f"{len(found)} pods of the {component}{f' on {node}' if node else ''}"
        return found[0]

    def _no_operator(self) -> None:
        left = [pod["metadata"]["name"] for pod in self._pods("operator")]
        assert not left, f"pods of the operator: {left}"
        # A pod that is deleted by force is gone before its process, which could write once more.
        for node in self.cluster.nodes:
            running = node.run(["pgrep", "-x", OPERATOR_PROCESS], check=False).stdout.split()
            assert not running, f"operator processes on {node.name}: {running}"

    def _agents_are_current(self) -> None:
        for daemonset in self.api.list(DAEMONSETS, labelSelector=f"{COMPONENT}=agent"):
            status = daemonset["status"]
            current = status.get("observedGeneration") == daemonset["metadata"]["generation"]
            counts = {status.get(name, 0) for name in ("updatedNumberScheduled", "numberReady", "numberAvailable")}
            assert current, f"{daemonset['metadata']['name']} is not observed yet: {status}"
            assert counts == {status["desiredNumberScheduled"]}, f"{daemonset['metadata']['name']}: {status}"

    def _reports(self, node: str, gpus: Gpus, since: datetime, resource: str) -> None:
        telemetry = self.telemetry(node)
        observed = telemetry.get("status", {}).get("observedAt", "never")
        assert observed != "never", f"{node} has not reported yet"
        since = max(since, _started(self.agent_pod(node)))
        assert datetime.fromisoformat(observed) >= since, f"{node} last reported at {observed}"
        healthy = {gpu.uuid for gpu in objects.gpus(telemetry) if gpu.healthy}
        assert healthy == set(gpus.uuids), f"{node} reports {len(healthy)} healthy GPUs, not its {len(gpus.uuids)}"
        if telemetry["status"].get("transport") == "DRA":
            return  # by ResourceClaims only
        offered = self.allocatable(node, resource)
        assert offered == len(gpus.uuids), f"{node} offers {offered} GPUs, not {len(gpus.uuids)}"


def _ready(pod: JsonObject) -> None:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    assert conditions.get("Ready") == "True", f"{pod['metadata']['name']} is not ready: {pod['status'].get('phase')}"


def _started(pod: JsonObject) -> datetime:
    """Returns when the latest container of a pod started."""
    found = [one["state"].get("running", {}).get("startedAt") for one in pod["status"].get("containerStatuses", [])]
    assert found, f"{pod['metadata']['name']} has no containers yet"
    assert None not in found, f"{pod['metadata']['name']} has a container that does not run"
    return max(map(datetime.fromisoformat, found))
