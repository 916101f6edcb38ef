"""Kubelet and agent are restarted under running pods, which must not notice."""

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
from gpufleet_e2e.support.sandbox import Room

REGISTERED_SECONDS = 10
FRESH_SECONDS = 10


def test_kubelet_restart(room: Room, fleet: Fleet) -> None:
    """Mechanism: the plugin sees the kubelet's new socket and registers again; the kubelet keeps what it handed out.

    A workload that is applied while the kubelet is away may be refused in admission and is replaced; it ends with its
    devices in any case. The new kubelet lists pods as it hears of them, and nothing is taken for freed by that.
    """
    node = fleet.nodes[1]
    room.apply(gpuworkload("runs", replicas=3, node=node))
    room.proven("runs")
    before, registrations = _containers(room, "runs"), fleet.registrations(node)
    with _holders_told(fleet, node) as told:
        fleet.node(node).stop_kubelet()
        room.apply(gpuworkload("caught", node=node))
        fleet.node(node).start_kubelet()
        began = monotonic()
        eventually(lambda: _registered(fleet, node, registrations), within=REGISTERED_SECONDS)
        print(f"registered {monotonic() - began:.1f} s after the kubelet's health endpoint answered")
        room.apply(gpuworkload("new", count=2, node=node))
        room.proven("runs", "caught", "new")
    assert all(set(before) <= holders for holders in told), "for a moment the agent took devices that are held for free"
    assert _containers(room, "runs") == before, "running containers were touched"


def test_agent_killed(room: Room, fleet: Fleet) -> None:
    """Mechanism: the agent keeps nothing that it can't read again; the kubelet keeps what it handed out.

    A workload applied in the gap completes, running pods are untouched, and telemetry is fresh in time: counted from
    the kill, with all that Kubernetes needs to see it, make the next pod and start it.
    """
    node = fleet.nodes[1]
    room.apply(gpuworkload("runs", count=2, replicas=2, node=node))
    room.proven("runs")
    before = _containers(room, "runs")
    old = fleet.agent_pod(node)["metadata"]
    killed = datetime.now(UTC)
    fleet.api.delete(f"{pods(NAMESPACE)}/{old['name']}", grace=0)
    room.apply(gpuworkload("gap", count=2, node=node))
    started = eventually(lambda: _started(fleet, node, old["uid"]), within=FRESH_SECONDS)
    observed = eventually(lambda: _observed_after(fleet, node, started), within=FRESH_SECONDS)
    print(f"new agent running {started - killed}, fresh {observed - killed} after the kill")
    assert (observed - killed).total_seconds() <= FRESH_SECONDS
    room.proven("runs", "gap")
    assert _containers(room, "runs") == before, "running containers were touched"


def test_agent_process_killed(room: Room, fleet: Fleet) -> None:
    """Mechanism: as above, for a crash: the kubelet starts the container again in the same pod.

    The plugin registers again, so that a new pod on the node gets its devices. The agent's pod is a new one, for the
    kubelet lets a container that has crashed before wait ever longer: its backoff is not ours to promise.
    """
    node = fleet.nodes[1]
    fleet.renew_agents()
    room.apply(gpuworkload("runs", node=node))
    room.proven("runs")
    before = _containers(room, "runs")
    old, process = fleet.agent_pod(node), fleet.agent_process(node)
    killed = datetime.now(UTC)
    fleet.node(node).run(["kill", "-KILL", str(process)])
    dead = datetime.now(UTC)  # nothing that the old process observed is later
    observed = eventually(lambda: _observed_after(fleet, node, dead), within=FRESH_SECONDS)
    print(f"fresh {observed - killed} after the kill")
    assert fleet.agent_process(node) != process, "the old process lives"
    new = eventually(lambda: _restarted(fleet, node, old), within=FRESH_SECONDS)
    print(f"container started again at {new}")
    room.apply(gpuworkload("new", count=7, node=node))
    room.proven("runs", "new")
    assert _containers(room, "runs") == before, "running containers were touched"


@contextmanager
def _holders_told(fleet: Fleet, node: str) -> Iterator[set[frozenset[str]]]:
    """The pods that hold something by the node's telemetry, as it was at one moment or another until the block ends.

    The agent writes once a second at most, so ten looks a second see everything that it writes.
    """
    told: set[frozenset[str]] = set()
    over = Event()

    def look() -> None:
        while not over.wait(0.1):
            devices = fleet.telemetry(node)["status"]["devices"]
            told.add(frozenset(one["podUID"] for device in devices for one in device.get("allocatedTo", ())))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield told
        finally:
            over.set()
        looking.result()


def _containers(room: Room, name: str) -> dict[str, tuple[str, int]]:
    """Pod -> id of its container and how often it was restarted."""
    return {
        pod["metadata"]["uid"]: (status["containerID"], status["restartCount"])
        for pod in room.pods(name)
        for status in pod["status"]["containerStatuses"]
    }


def _registered(fleet: Fleet, node: str, before: float) -> None:
    assert fleet.registrations(node) > before, "the plugin has not registered again"
    for resource in (RESOURCE, SHARED_RESOURCE):
        listens = fleet.agent_metric(node, "gpufleet_agent_registered", resource=resource)
        assert listens == 1, f"the kubelet does not listen for {resource}"


def _started(fleet: Fleet, node: str, old: str) -> datetime:
    pod: JsonObject = fleet.agent_pod(node)
    assert pod["metadata"]["uid"] != old, "the old pod stands"
    running = [one["state"].get("running") for one in pod["status"].get("containerStatuses", [])]
    assert running, f"the new pod is {pod['status'].get('phase')}"
    assert running[0], "the new container does not run yet"
    return datetime.fromisoformat(running[0]["startedAt"])


def _restarted(fleet: Fleet, node: str, old: JsonObject) -> datetime:
    """When the container of the same pod was started again."""
    pod = fleet.agent_pod(node)
    assert pod["metadata"]["uid"] == old["metadata"]["uid"], "the pod was replaced"
    (was,), (now,) = old["status"]["containerStatuses"], pod["status"]["containerStatuses"]
    assert now["containerID"] != was["containerID"], "the old container stands"
    assert now["restartCount"] == was["restartCount"] + 1
    running = now["state"].get("running")
    assert running, f"the new container is {now['state']}"
    return datetime.fromisoformat(running["startedAt"])


def _observed_after(fleet: Fleet, node: str, moment: datetime) -> datetime:
    said = fleet.telemetry(node)["status"]["observedAt"]
    observed = datetime.fromisoformat(said)
    assert observed > moment, f"last observed at {said}, before {moment}"
    return observed
