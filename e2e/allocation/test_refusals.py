"""Somebody else on the road says no: kube-scheduler or the kubelet. The devices come back and the replica goes on."""

from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

PORT = 18080


def test_kube_scheduler_refuses_the_pinned_pod(room: Room, fleet: Fleet) -> None:
    """Mechanism: the scheduler's verdict on a pinned pod, believed after a grace period, sets the node aside.

    The port that the pod wants is taken on the node with the best device; the operator doesn't count ports.
    """
    first, second = fleet.nodes
    best, other = fleet.gpus[first].uuids[0], fleet.gpus[second].uuids[0]
    fleet.gpus[second].report(other, utilization_percent=60)
    eventually(lambda: _reports(fleet, second, other, 60), within=10)
    ports = [{"containerPort": PORT, "hostPort": PORT}]
    blocker = plain_pod("blocker", nodeSelector={"kubernetes.io/hostname": first})
    blocker["spec"]["containers"] = [container(ports=ports)]
    fleet.api.create(pods(room.namespace), blocker)
    eventually(lambda: _running(room, "blocker"), within=20)
    room.apply(gpuworkload("port", uuids=(best, other), template=pod_spec(container(ports=ports))))
    told = room.wait_for("port", lambda found: bool(_refusals(found)), 20)
    (refusal,) = _refusals(told)
    assert (refusal["by"], refusal["node"]) == ("kube-scheduler", first)
    assert "free ports" in refusal["message"], refusal
    message = told["status"]["explanation"]["message"]
    print(message)
    assert refusal["message"] in message, "the explanation quotes the scheduler"
    assert room.devices("port") == (other,), "it is placed elsewhere"
    assert "free ports" in room.event("port", "SchedulerRefused")
    assert _holders(fleet, best) == [], "the devices of the first try are free again"


def test_kube_scheduler_refuses_everywhere(room: Room, fleet: Fleet) -> None:
    """Mechanism: as above without an elsewhere. It waits with the scheduler's words, then goes on by itself."""
    node = fleet.nodes[1]
    ports = [{"containerPort": PORT, "hostPort": PORT}]
    blocker = plain_pod("blocker", nodeSelector={"kubernetes.io/hostname": node})
    blocker["spec"]["containers"] = [container(ports=ports)]
    fleet.api.create(pods(room.namespace), blocker)
    eventually(lambda: _running(room, "blocker"), within=20)
    room.apply(gpuworkload("port", node=node, template=pod_spec(container(ports=ports))))
    told = room.wait_for("port", lambda found: bool(_refusals(found)), 20)
    assert "free ports" in told["status"]["explanation"]["message"]
    fleet.api.delete(f"{pods(room.namespace)}/blocker", grace=0)
    room.proven("port")


def test_the_kubelet_refuses_the_pod(room: Room, fleet: Fleet) -> None:
    """Mechanism: the plugin refuses a reserved device that has fallen ill, the kubelet fails the pod, it is replaced.

    No scheduler binds these pods but the test, so the device falls ill exactly between release and admission.
    """
    first, second = fleet.nodes
    ill, well = fleet.gpus[first].uuids[0], fleet.gpus[second].uuids[0]
    fleet.gpus[second].report(well, utilization_percent=60)
    eventually(lambda: _reports(fleet, second, well, 60), within=10)
    room.apply(gpuworkload("retry", uuids=(ill, well), template=pod_spec(schedulerName="by-hand")))
    before = eventually(lambda: _released(room, "retry"), within=15)
    assert room.reserved("retry")["devices"] == [ill]
    fleet.gpus[first].lose(ill)
    eventually(lambda: _offers(fleet, first, 15), within=20)
    _bind(room, before, first)
    after = eventually(lambda: _released(room, "retry", not_uid=before["metadata"]["uid"]), within=20)
    words = room.event("retry", "KubeletRefused")
    print(words)
    assert "UnexpectedAdmissionError" in words
    assert ill in words
    assert room.reserved("retry")["devices"] == [well]
    _bind(room, after, second)
    assert room.devices("retry") == (well,)


def test_the_plugin_is_away(room: Room, fleet: Fleet) -> None:
    """Mechanism: as above for the plugin itself.

    A pod that is admitted while no plugin listens may be refused by the kubelet. It is replaced until all is well.
    """
    node = fleet.nodes[1]
    room.apply(gpuworkload("early", count=4, node=node, template=pod_spec(schedulerName="by-hand")))
    pod = eventually(lambda: _released(room, "early"), within=15)
    fleet.node(node).run(["kill", "-KILL", str(fleet.agent_process(node))])
    _bind(room, pod, node)

    def settled() -> None:
        # Bound pods that were refused are followed by new ones, which want to be bound, too.
        for one in room.pods("early"):
            if not one["spec"].get("schedulingGates") and not one["spec"].get("nodeName"):
                _bind(room, one, node)
        room.wait_ready("early", within=1)

    eventually(settled, within=60)
    room.proven("early")


def _refusals(workload: JsonObject) -> list[JsonObject]:
    return list(workload.get("status", {}).get("explanation", {}).get("refusals", []))


def _running(room: Room, pod: str) -> None:
    status = room.fleet.api.get(f"{pods(room.namespace)}/{pod}")["status"]
    assert status["phase"] == "Running", f"{pod} is {status['phase']}"


def _released(room: Room, name: str, not_uid: str = "") -> JsonObject:
    pod = room.pod(name)
    assert pod["metadata"]["uid"] != not_uid, "the old pod stands"
    assert not pod["spec"].get("schedulingGates"), f"still gated; {room.words(name)}"
    return pod


def _bind(room: Room, pod: JsonObject, node: str) -> None:
    """What kube-scheduler does."""
    name = pod["metadata"]["name"]
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    room.fleet.api.create(f"{pods(room.namespace)}/{name}/binding", binding)


def _reports(fleet: Fleet, node: str, uuid: str, percent: int) -> None:
    devices = fleet.telemetry(node)["status"]["devices"]
    said = next(one["utilizationPercent"] for one in devices if one["uuid"] == uuid)
    assert said == percent, f"{uuid} is reported at {said}%"


def _offers(fleet: Fleet, node: str, count: int) -> None:
    assert fleet.allocatable(node) == count, f"{node} offers {fleet.allocatable(node)}"


def _holders(fleet: Fleet, uuid: str) -> list[str]:
    return [one["pod"] for one in fleet.assignments().values() if uuid in one["devices"]]
