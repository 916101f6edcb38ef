"""Two replicas of the operator: one leads, and the other takes over."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from gpufleet_e2e.faults.hanging_webhook import WEBHOOKS
from gpufleet_e2e.faults.leader import (
    FAILOVER_SECONDS,
    HANDOVER_SECONDS,
    READY_SECONDS,
    check_other_leads,
    check_ready,
    find_leader,
    replace_restarted,
)
from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testbed import Node

REPLICAS = 2
NO_LEADER_SECONDS = 90
"""doctor waits twice as long as a standby may take; a container is restarted meanwhile."""

OUTAGE_SECONDS = float(os.environ.get("GPUFLEET_E2E_OUTAGE_SECONDS", "60"))
"""More than each time that could pass: the Lease (10 s), requests and fresh telemetry (15 s), a placed pod without a
scheduler (25 s), the longest pause of clients (30 s), a kubelet's lease (40 s), and a silent node (50 s). What lasts
longer begins with a write: evictions after 300 s, for example, with a taint."""
RECOVERED_SECONDS = 150
"""kube-proxy, the operator, the agent and kube-scheduler may each have begun their longest pause: pods reach the
apiserver again once kube-proxy has its endpoint."""
RELIST_SECONDS = 600
"""No periodic list within the tests."""


@pytest.fixture(scope="module")
def replicas(fleet: Fleet) -> Iterator[None]:
    """Runs two replicas."""
    fleet.install(operator={"replicas": REPLICAS, "relistIntervalSeconds": RELIST_SECONDS})
    eventually(lambda: check_ready(fleet, REPLICAS), within=READY_SECONDS)
    yield
    fleet.restore_later()


@pytest.mark.usefixtures("replicas")
def test_standby_takes_over_from_a_killed_leader(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the Lease expires by the standby's clock; the standby lists the cluster before its first pass."""
    namespace.apply(gpuworkload("early"))
    before = namespace.verify("early")["early"].replicas[0]
    leader = eventually(lambda: find_leader(fleet), within=30)
    leader.signal("KILL")
    began = time.monotonic()
    namespace.apply(gpuworkload("late"))

    eventually(lambda: check_other_leads(fleet, leader), within=FAILOVER_SECONDS)
    print(f"another process leads after {time.monotonic() - began:.1f} s")

    after = namespace.verify("early", "late")["early"].replicas[0]
    assert (after.pod_uid, after.picked) == (before.pod_uid, before.picked), "a running pod changed"
    replace_restarted(fleet, REPLICAS)


@pytest.mark.usefixtures("replicas")
def test_frozen_leader_writes_nothing_when_it_goes_on(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: before each write the leader checks its Lease by the monotonic clock, which a freeze does not stop.

    Its watches deliver the workload that it has not seen as soon as it goes on.
    """
    leader = eventually(lambda: find_leader(fleet), within=30)
    leader.signal("STOP")
    try:
        namespace.apply(gpuworkload("train", count=2, replicas=3))
        eventually(lambda: check_other_leads(fleet, leader), within=FAILOVER_SECONDS)
        evidence = namespace.verify("train")["train"]
        versions = _versions(namespace, fleet)
    finally:
        leader.signal("CONT")

    def ended() -> None:
        assert not leader.runs(), "the process that lost the Lease runs"

    eventually(ended, within=20)
    assert namespace.verify("train")["train"].replicas == evidence.replicas
    assert _versions(namespace, fleet) == versions, "the frozen process wrote"
    replace_restarted(fleet, REPLICAS)


def _versions(namespace: TestNamespace, fleet: Fleet) -> tuple[object, ...]:
    """Returns the pods, and what was reserved, since the decisions of the new leader."""
    created = [(pod["metadata"]["uid"], pod["metadata"]["name"]) for pod in namespace.all_pods("train")]
    return sorted(created), {uid: one["devices"] for uid, one in fleet.assignments(namespace.name).items()}


@pytest.mark.usefixtures("replicas")
def test_stopped_leader_gives_the_lease_back(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: after SIGTERM the leader writes an empty holder, which the standby sees within half a second."""
    leader = eventually(lambda: find_leader(fleet), within=30)
    leader.signal("TERM")
    began = time.monotonic()

    eventually(lambda: check_other_leads(fleet, leader), within=HANDOVER_SECONDS, every=0.1)
    print(f"another process leads after {time.monotonic() - began:.1f} s")

    namespace.apply(gpuworkload("train"))
    namespace.verify("train")
    eventually(lambda: _doctor_names_the_leader(fleet), within=READY_SECONDS, every=2)
    replace_restarted(fleet, REPLICAS)


def _doctor_names_the_leader(fleet: Fleet) -> None:
    done = CommandLine(fleet.cluster).run("doctor", "-o", "json")
    assert done.json["leaders"] == [find_leader(fleet).pod]
    assert "NoLeader" not in {one["check"] for one in done.json["problems"]}


@pytest.mark.usefixtures("replicas")
def test_doctor_reports_that_no_replica_leads(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: writes of Leases call a webhook that nobody serves. Both processes are ready, as standbys."""
    leader = eventually(lambda: find_leader(fleet), within=30)
    with _lease_writes_fail(fleet):
        problem = eventually(lambda: _no_leader(fleet), within=NO_LEADER_SECONDS, every=2)
        print(problem)
        assert problem["object"] == f"lease/{NAMESPACE}/gpufleet-operator"
        assert f"the last leader {leader.pod} renewed it at 20" in problem["cause"]
        assert "webhook" in problem["cure"]
    replace_restarted(fleet, REPLICAS)
    eventually(lambda: _doctor_names_the_leader(fleet), within=READY_SECONDS, every=2)
    namespace.apply(gpuworkload("train"))
    namespace.verify("train")


@pytest.mark.usefixtures("replicas")
def test_outage_of_the_apiserver_touches_no_container(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: clients wait for it, and list again; only the leader ends, which could not renew its Lease.

    A workload that comes afterwards gets the devices of a container that ended meanwhile, and of a workload that is
    deleted before kopf watches again, which lists then and reports no deletion.
    """
    node = fleet.nodes[1]
    template = pod_spec(restartPolicy="Never")
    namespace.apply(
        gpuworkload("runs", count=2, replicas=2, node=node),
        gpuworkload("ends", count=2, node=node, template=template),
        gpuworkload("goes", count=2, node=node),
    )
    before = namespace.verify("runs", "ends", "goes")["runs"].replicas
    agents = [_restarts(fleet.agent_pod(one)) for one in fleet.nodes]
    shell, sleeper = sorted(fleet.processes(node, namespace.pod("ends")))
    running = [str(one) for pod in namespace.pods("runs") for one in fleet.processes(node, pod)]
    fleet.cluster.stop_apiserver()
    try:
        fleet.node(node).run(["kill", "-TERM", str(shell), str(sleeper)])
        never(lambda: _all_run(fleet.node(node), running), for_seconds=OUTAGE_SECONDS, every=5)
    finally:
        fleet.cluster.start_apiserver()
    back = time.monotonic()
    namespace.delete("goes")
    namespace.apply(gpuworkload("next", count=4, node=node))
    found = namespace.verify("runs", "next", within=RECOVERED_SECONDS)
    print(f"placed {time.monotonic() - back:.1f} s after the apiserver is back")
    assert found["runs"].replicas == before
    _all_run(fleet.node(node), running)
    namespace.wait_condition("ends", "Complete", "True", "Succeeded")
    assert [_restarts(fleet.agent_pod(one)) for one in fleet.nodes] == agents, "an agent restarted"
    restarts = fleet.operator_restarts()
    assert sorted(restarts.values()) == [0, 1], restarts
    replace_restarted(fleet, REPLICAS)


def _all_run(node: Node, processes: Sequence[str]) -> None:
    asked = node.run(["kill", "-0", *processes], check=False)
    assert asked.returncode == 0, f"containers ended: {asked.stderr}"


def _restarts(pod: JsonObject) -> tuple[str, list[int]]:
    return pod["metadata"]["uid"], [one["restartCount"] for one in pod["status"]["containerStatuses"]]


@contextmanager
def _lease_writes_fail(fleet: Fleet) -> Iterator[None]:
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["leases"],
    }
    webhook = {
        "name": "refused.gpufleet.dev",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    fleet.api.create(WEBHOOKS, {**head, "metadata": {"name": "e2e-leases"}, "webhooks": [webhook]})
    try:
        yield
    finally:
        fleet.api.delete(f"{WEBHOOKS}/e2e-leases")


def _no_leader(fleet: Fleet) -> JsonObject:
    found = CommandLine(fleet.cluster).run("doctor", "-o", "json").json["problems"]
    assert [one["check"] for one in found] == ["NoLeader"], found
    problem: JsonObject = found[0]
    return problem
