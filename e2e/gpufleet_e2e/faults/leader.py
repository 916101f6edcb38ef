"""The process of the operator that holds the Lease."""

from dataclasses import dataclass

from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.fleet import LEASE, OPERATOR_PROCESS, Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.polling import eventually
from gpufleet_testbed import Node

FAILOVER_SECONDS = 15
"""After the leader is lost. The Lease is valid for 10 s."""
HANDOVER_SECONDS = 2
"""After the leader is asked to stop."""
READY_SECONDS = 60


@dataclass(frozen=True)
class Leader:
    """The process that holds the Lease."""

    identity: str
    pod: str
    node: Node
    process: int

    def signal(self, name: str) -> None:
        self.node.run(["kill", f"-{name}", str(self.process)])

    def runs(self) -> bool:
        return self.node.run(["kill", "-0", str(self.process)], check=False).returncode == 0


def find_leader(fleet: Fleet) -> Leader:
    """Finds the process that holds the Lease; fails if there is none at this moment."""
    identity = holder(fleet)
    name = identity.partition("_")[0]
    pod = next((pod for pod in fleet.operator_pods() if pod["metadata"]["name"] == name), None)
    assert pod is not None, f"no pod of {identity or 'a leader'}"
    node = fleet.node(pod["spec"]["nodeName"])
    for process in node.run(["pgrep", "-x", OPERATOR_PROCESS], check=False).stdout.split():
        environment = node.run(["cat", f"/proc/{process}/environ"]).stdout.split("\0")
        if f"HOSTNAME={name}" in environment:
            return Leader(identity, name, node, int(process))
    raise AssertionError(f"no process of {identity}")


def holder(fleet: Fleet) -> str:
    """Returns the identity in the Lease; empty: it is released."""
    return str(fleet.api.get(LEASE)["spec"].get("holderIdentity") or "")


def check_other_leads(fleet: Fleet, before: Leader) -> None:
    """Asserts that another process holds the Lease."""
    found = holder(fleet)
    assert found not in (before.identity, ""), f"held by {found or 'no process'}"


def check_ready(fleet: Fleet, replicas: int) -> None:
    """Asserts that so many operators exist, and that all of them are ready."""
    states = [[one["ready"] for one in pod["status"].get("containerStatuses", [])] for pod in fleet.operator_pods()]
    assert states == [[True]] * replicas, f"operators are ready: {states}"


def replace_restarted(fleet: Fleet, replicas: int) -> None:
    """Replaces the pod whose container restarts, which counts as a failure of the operator elsewhere."""

    def restarted() -> list[JsonObject]:
        restarts = fleet.operator_restarts()
        found = [pod for pod in fleet.operator_pods() if restarts.get(pod["metadata"]["uid"])]
        assert found, "no container has restarted yet"
        return found

    for pod in eventually(restarted, within=READY_SECONDS):
        fleet.api.delete(f"{pods(NAMESPACE)}/{pod['metadata']['name']}", grace=0)
    eventually(lambda: check_ready(fleet, replicas), within=READY_SECONDS)
    eventually(lambda: find_leader(fleet), within=FAILOVER_SECONDS)
