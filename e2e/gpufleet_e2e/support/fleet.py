"""The installed product as the tests handle it: two nodes with simulated GPUs, their agents, the operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from prometheus_client.parser import text_string_to_metric_families

from gpufleet_api.names import RESOURCE
from gpufleet_e2e.proof import Witness, objects
from gpufleet_e2e.support.api import NODES, TELEMETRY, Api, JsonObject, pods
from gpufleet_e2e.support.gpus import Gpus
from gpufleet_e2e.support.install import NAMESPACE, RELEASE, install
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.watchdog import Watchdog
from gpufleet_testbed import Cluster, Node

OPERATOR = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{RELEASE}-operator"
COMPONENT = "app.kubernetes.io/component"
READY_SECONDS = 60


@dataclass(frozen=True)
class Fleet:
    """Handles of everything. `gpus` is keyed by node name."""

    cluster: Cluster
    api: Api
    witness: Witness
    watchdog: Watchdog
    gpus: dict[str, Gpus]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names, the node with the most GPUs first."""
        return tuple(self.gpus)

    def install(self, agent_args: Sequence[str] = (), agent: Mapping[str, object] | None = None) -> None:
        """Install the chart with the tests' values and wait until every agent reports its node's GPUs.

        Args:
            agent_args: Further arguments of every agent.
            agent: Further values of the chart's agent.
        """
        since = datetime.now(UTC)
        install(self.cluster, agent_args=agent_args, agent=agent)
        self.wait_for_telemetry(since)

    def renew_agents(self) -> None:
        """Replace every agent's pod by a new one: it starts on the driver as it is now."""
        since = datetime.now(UTC)
        for node in self.nodes:
            self.api.delete(f"{pods(NAMESPACE)}/{self.agent_pod(node)['metadata']['name']}", grace=0)
        self.wait_for_telemetry(since)

    def wait_for_telemetry(self, since: datetime) -> None:
        """Wait until every node's telemetry is later than `since`, names its GPUs, and the kubelet offers them."""
        for name, gpus in self.gpus.items():
            eventually(partial(self._reports, name, gpus, since), within=READY_SECONDS)

    def telemetry(self, node: str) -> JsonObject:
        """The node's GPUTelemetry."""
        return self.api.get(f"{TELEMETRY}/{node}")

    def assignments(self, namespace: str | None = None) -> dict[str, JsonObject]:
        """Reservations of all nodes by pod uid, each with its `node`; of one namespace if it is given."""
        return {
            assignment["podUID"]: {**assignment, "node": telemetry["metadata"]["name"]}
            for telemetry in self.witness.telemetry()
            for assignment in telemetry.get("spec", {}).get("assignments", [])
            if namespace in (None, assignment["namespace"])
        }

    def allocatable(self, node: str, resource: str = "gpufleet.dev/gpu") -> int:
        """Devices that the node offers, by its Node object."""
        return int(self.api.get(f"{NODES}/{node}")["status"]["allocatable"].get(resource, "0"))

    def agent_pod(self, node: str) -> JsonObject:
        """The agent's pod on a node that isn't being deleted."""
        return self._pod("agent", node)

    def operator_pod(self) -> JsonObject:
        """The operator's pod that isn't being deleted."""
        return self._pod("operator")

    def operator_restarts(self) -> dict[str, int]:
        """How often the operator's container was restarted, by its pod's uid."""
        return {
            pod["metadata"]["uid"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
            for pod in self._pods("operator")
        }

    def stop_operator(self) -> None:
        """Kill the operator and keep it away. SIGKILL: it can't finish anything."""
        self.api.patch(f"{OPERATOR}/scale", {"spec": {"replicas": 0}})
        for pod in self._pods("operator"):
            self.api.delete(f"{pods(NAMESPACE)}/{pod['metadata']['name']}", grace=0)
        eventually(self._no_operator, within=READY_SECONDS)

    def start_operator(self) -> None:
        """Bring it back and wait until it is ready."""
        self.api.patch(f"{OPERATOR}/scale", {"spec": {"replicas": 1}})
        eventually(lambda: _ready(self.operator_pod()), within=READY_SECONDS)

    def agent_metric(self, node: str, name: str, **labels: str) -> float:
        """The sum of the agent's samples of this name that have these labels, read as Prometheus does."""
        pod = self.agent_pod(node)["metadata"]["name"]
        page = self.api.text(f"{pods(NAMESPACE)}/{pod}:9400/proxy/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def registrations(self, node: str, resource: str = RESOURCE) -> float:
        """How often the agent has registered a resource with its kubelet since it runs."""
        return self.agent_metric(node, "gpufleet_agent_registrations_total", resource=resource, outcome="Registered")

    def agent_process(self, node: str) -> int:
        """The agent's process id inside its node."""
        found = self.node(node).run(["pgrep", "-x", "gpufleet-agent"]).stdout.split()
        assert len(found) == 1, f"processes of agents on {node}: {found}"
        return int(found[0])

    def freeze_agent(self, node: str) -> None:
        """Stop the agent's process where it stands: it neither reports nor answers."""
        self.node(node).run(["kill", "-STOP", str(self.agent_process(node))])

    def thaw_agent(self, node: str) -> None:
        """Let a frozen agent go on."""
        self.node(node).run(["kill", "-CONT", str(self.agent_process(node))])

    def node(self, name: str) -> Node:
        """The machine."""
        return self.cluster.node(name)

    def _pods(self, component: str) -> list[JsonObject]:
        return self.api.list(pods(NAMESPACE), labelSelector=f"{COMPONENT}={component}")

    def _pod(self, component: str, node: str | None = None) -> JsonObject:
        found = [
            pod
            for pod in self._pods(component)
            if "deletionTimestamp" not in pod["metadata"] and node in (None, pod["spec"].get("nodeName"))
        ]
        assert len(found) == 1, f"{len(found)} pods of the {component}{f' on {node}' if node else ''}"
        return found[0]

    def _no_operator(self) -> None:
        left = [pod["metadata"]["name"] for pod in self._pods("operator")]
        assert not left, f"still there: {left}"

    def _reports(self, node: str, gpus: Gpus, since: datetime) -> None:
        telemetry = self.telemetry(node)
        observed = telemetry.get("status", {}).get("observedAt", "never")
        assert observed != "never", f"{node} has never reported"
        assert datetime.fromisoformat(observed) >= since, f"{node} reported last at {observed}"
        healthy = {gpu.uuid for gpu in objects.gpus(telemetry) if gpu.healthy}
        assert healthy == set(gpus.uuids), f"{node} reports {len(healthy)} healthy GPUs, not its {len(gpus.uuids)}"
        offered = self.allocatable(node)
        assert offered == len(gpus.uuids), f"{node} offers {offered} GPUs, not {len(gpus.uuids)}"


def _ready(pod: JsonObject) -> None:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    assert conditions.get("Ready") == "True", f"{pod['metadata']['name']} is not ready: {pod['status'].get('phase')}"
