"""Kubelet and agent restart; running pods must not be affected."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event
from time import monotonic

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

REGISTERED_SECONDS = 10
FRESH_SECONDS = 10


def test_kubelet_restart(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the plugin sees the kubelet's new socket and registers again; the kubelet keeps its allocations.

    A workload applied while the kubelet is down may be rejected at admission and replaced; in the end it has its
    devices. The new kubelet lists pods only as it learns of them, which must not look as if devices were freed.
    """
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("runs", replicas=3, node=node))
    namespace.verify("runs")
    before, registrations = _containers(namespace, "runs"), fleet.registrations(node)
    with _reported_holders(fleet, node) as reported:
        fleet.node(node).stop_kubelet()
        namespace.apply(gpuworkload("caught", node=node))
        fleet.node(node).start_kubelet()
        began = monotonic()
        eventually(lambda: _registered(fleet, node, registrations), within=REGISTERED_SECONDS)
        print(f"registered {monotonic() - began:.1f} s after the kubelet's health endpoint answered")
        namespace.apply(gpuworkload("new", count=2, node=node))
        namespace.verify("runs", "caught", "new")
    assert all(set(before) <= holders for holders in reported), "the agent reported a held device as free"
    assert _containers(namespace, "runs") == before, "running containers changed"


def test_agent_killed(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the agent can read its whole state again; the kubelet keeps its allocations.

    A workload applied in the gap completes, running pods do not change, and telemetry is fresh in time, counted from
    the kill: this includes the time that Kubernetes needs to create and start the next pod.
    """
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("runs", count=2, replicas=2, node=node))
    namespace.verify("runs")
    before = _containers(namespace, "runs")
    old = fleet.agent_pod(node)["metadata"]
    killed = datetime.now(UTC)
    fleet.api.delete(f"{pods(NAMESPACE)}/{old['name']}", grace=0)
    namespace.apply(gpuworkload("gap", count=2, node=node))
    started = eventually(lambda: _started(fleet, node, old["uid"]), within=FRESH_SECONDS)
    observed = eventually(lambda: _observed_after(fleet, node, started), within=FRESH_SECONDS)
    print(f"new agent running {started - killed}, fresh {observed - killed} after the kill")
    assert (observed - killed).total_seconds() <= FRESH_SECONDS
    namespace.verify("runs", "gap")
    assert _containers(namespace, "runs") == before, "running containers changed"


def test_agent_process_killed(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: as above, for a crash: the kubelet restarts the container in the same pod.

    The plugin registers again, so that a new pod on the node gets its devices. The test uses a new agent pod, because
    the kubelet's backoff grows with each crash.
    """
    node = fleet.nodes[1]
    fleet.replace_agents()
    namespace.apply(gpuworkload("runs", node=node))
    namespace.verify("runs")
    before = _containers(namespace, "runs")
    old, process = fleet.agent_pod(node), fleet.agent_process(node)
    killed = datetime.now(UTC)
    fleet.node(node).run(["kill", "-KILL", str(process)])
    dead = datetime.now(UTC)  # the old process observed nothing later
    observed = eventually(lambda: _observed_after(fleet, node, dead), within=FRESH_SECONDS)
    print(f"fresh {observed - killed} after the kill")
    assert fleet.agent_process(node) != process, "the old process still runs"
    new = eventually(lambda: _restarted(fleet, node, old), within=FRESH_SECONDS)
    print(f"container started again at {new}")
    namespace.apply(gpuworkload("new", count=7, node=node))
    namespace.verify("runs", "new")
    assert _containers(namespace, "runs") == before, "running containers changed"


@contextmanager
def _reported_holders(fleet: Fleet, node: str) -> Iterator[set[frozenset[str]]]:
    """Collects every set of holders that the node's telemetry reports while the block runs.

    The agent writes at most once a second, so ten reads a second see every write.
    """
    reported: set[frozenset[str]] = set()
    over = Event()

    def read() -> None:
        while not over.wait(0.1):
            devices = fleet.telemetry(node)["status"]["devices"]
            reported.add(frozenset(one["podUID"] for device in devices for one in device.get("allocatedTo", ())))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            yield reported
        finally:
            over.set()
        reading.result()


def _containers(namespace: TestNamespace, name: str) -> dict[str, tuple[str, int]]:
    """Returns the container ID and restart count of each pod, by UID."""
    return {
        pod["metadata"]["uid"]: (status["containerID"], status["restartCount"])
        for pod in namespace.pods(name)
        for status in pod["status"]["containerStatuses"]
    }


def _registered(fleet: Fleet, node: str, before: float) -> None:
    assert fleet.registrations(node) > before, "the plugin has not registered again"
    for resource in (RESOURCE, SHARED_RESOURCE):
        listens = fleet.agent_metric(node, "gpufleet_agent_registered", resource=resource)
        assert listens == 1, f"the kubelet does not listen for {resource}"


def _started(fleet: Fleet, node: str, old: str) -> datetime:
    pod: JsonObject = fleet.agent_pod(node)
    assert pod["metadata"]["uid"] != old, "the old pod still exists"
    running = [one["state"].get("running") for one in pod["status"].get("containerStatuses", [])]
    assert running, f"the new pod is {pod['status'].get('phase')}"
    assert running[0], "the new container does not run yet"
    return datetime.fromisoformat(running[0]["startedAt"])


def _restarted(fleet: Fleet, node: str, old: JsonObject) -> datetime:
    """Returns when the container of the same pod was restarted."""
    pod = fleet.agent_pod(node)
    assert pod["metadata"]["uid"] == old["metadata"]["uid"], "the pod was replaced"
    (was,), (now,) = old["status"]["containerStatuses"], pod["status"]["containerStatuses"]
    assert now["containerID"] != was["containerID"], "the old container still exists"
    assert now["restartCount"] == was["restartCount"] + 1
    running = now["state"].get("running")
    assert running, f"the new container is {now['state']}"
    return datetime.fromisoformat(running["startedAt"])


def _observed_after(fleet: Fleet, node: str, moment: datetime) -> datetime:
    observed = datetime.fromisoformat(fleet.telemetry(node)["status"]["observedAt"])
    assert observed > moment, f"last observed at {observed}, before {moment}"
    return observed
