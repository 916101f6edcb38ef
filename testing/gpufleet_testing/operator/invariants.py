"""Invariants of a cluster with the operator: at any time, and after it has settled.

I1: no device is reserved twice, nor given to a pod while another still has it, and no pod is released without a
reservation. I3: a gated pod's workload says why. I6: after the last fault, everything ends as without faults.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from gpufleet_api.names import ATTEMPT_LABEL, REPLICA_LABEL
from gpufleet_common.device_ids import device_of
from gpufleet_testing.operator.apiserver import Json, copy_json
from gpufleet_testing.operator.cluster import DEVICE_MEMORY_MIB, FakeCluster, claim_of, claimed_devices

_QUIET_ROUNDS = 2
_QUIET_TIME = timedelta(hours=1)
"""Longer than any pause and any turn."""
_LONGEST_STEP = timedelta(seconds=60)
"""Shorter than the time after which telemetry is stale."""

_STATUS_WRITE = ("MODIFIED", "workloads")
"""While a cluster settles, no user edits a workload."""

Reserved = dict[str, tuple[str, set[str]]]
"""Pod uid -> node and devices."""


class Operator(Protocol):
    """A process of the operator, or one that is restarted when it crashes."""

    def relist(self) -> None: ...

    async def act(self) -> datetime | None: ...

    def next_change(self) -> datetime | None: ...


async def settle(cluster: FakeCluster, operator: Operator, rounds: int = 24, *, seconds: float = 7) -> None:
    """Every component takes its steps, without faults, until nothing changes any more and no backoff is left.

    The operator is level-triggered. So when two rounds in a row change nothing but what is reported, and no decision
    changes by itself, the other rounds would not change anything either: the second one decides on reports that are
    newer than the last pause. The wait of a pod is reported again and again, so an hour without another change is
    enough as well.
    """
    cluster.fault = None
    cluster.reject_binding.clear()
    cluster.reject_admission.clear()
    cluster.silent.clear()
    quiet, quiet_since = 0, cluster.now
    for _ in range(rounds):
        before, due = Moment(cluster), None
        operator.relist()
        for _ in range(3):
            sent, due = cluster.sent, await operator.act()
            if cluster.sent == sent and (due is None or due > cluster.now):
                break  # another pass at this moment would decide the same
        decided = Moment(cluster)
        cluster.scheduler()
        for node in list(cluster.kubelets):
            if ("nodes", node) in cluster.objects:
                cluster.kubelet(node)
                cluster.agent(node)
        cluster.collector()
        cluster.advance(seconds)
        if before.moves(cluster):
            quiet_since = cluster.now
        change = cluster.now if decided.differs(cluster) else operator.next_change()
        quiet = quiet + 1 if change is None and quiet_since < cluster.now else 0
        if quiet == _QUIET_ROUNDS or cluster.now - quiet_since >= _QUIET_TIME:
            return
        if change is not None:
            _wait(cluster, min(change, quiet_since + _QUIET_TIME))  # a retry pause takes minutes
        elif due is not None:
            _wait(cluster, min(due, cluster.now + _LONGEST_STEP))


def _wait(cluster: FakeCluster, until: datetime) -> None:
    """Lets time pass in which only the agents act. Nothing reads their reports meanwhile, so only the last is made."""
    left = max(timedelta(0), until - cluster.now)
    last = min(left, left % _LONGEST_STEP or _LONGEST_STEP)
    if left > last:
        cluster.advance((left - last).total_seconds())
        for node in cluster.kubelets:
            cluster.agent(node)
    cluster.advance(last.total_seconds())


class Moment:
    """The state of a cluster at one time."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._position, self._generations = len(cluster.log), _generations(cluster)
        self._held = copy_json(cluster.kubelets)

    def differs(self, cluster: FakeCluster) -> bool:
        """Returns whether the cluster has changed since, but for what the agents report."""
        return self._changed(cluster, lambda event, kind: kind != "telemetry")

    def moves(self, cluster: FakeCluster) -> bool:
        """Returns whether the cluster has changed since, but for what the agents report and statuses of workloads."""
        return self._changed(cluster, lambda event, kind: kind != "telemetry" and (event, kind) != _STATUS_WRITE)

    def _changed(self, cluster: FakeCluster, counts: Callable[[str, str], bool]) -> bool:
        return (
            any(counts(event, kind) for event, kind, _ in cluster.log[self._position :])
            or self._generations != _generations(cluster)
            or self._held != cluster.kubelets
        )


def _generations(cluster: FakeCluster) -> dict[str, tuple[str, int]]:
    return {t["metadata"]["name"]: (t["metadata"]["uid"], t["metadata"]["generation"]) for t in cluster.of("telemetry")}


def check_always(cluster: FakeCluster) -> None:
    """I1, and a message in each condition, at any time."""
    check_messages(cluster)
    assert cluster.collisions == []
    for uid, node, reserved in cluster.released:
        assert node in reserved, f"{uid} was released to {node} without a reservation there"
    pods = {p["metadata"]["uid"] for p in cluster.of("pods")}
    claimed: dict[str, list[Any]] = {}
    for _, assignment in cluster.ledger():
        for uuid in assignment["devices"]:
            if assignment["podUID"] in pods or assignment.get("keepForSuccessor"):
                claimed.setdefault(uuid, []).append(assignment.get("memoryMiB"))
    for uuid, promises in claimed.items():
        assert len(promises) == 1 or None not in promises, f"{uuid} reserved twice"
        assert sum(memory or 0 for memory in promises) <= DEVICE_MEMORY_MIB, f"promises exceed the memory of {uuid}"


def check_messages(cluster: FakeCluster) -> None:
    """Asserts that every condition of every workload has a message."""
    for workload in cluster.of("workloads"):
        for condition in (workload.get("status") or {}).get("conditions", ()):
            assert condition["message"], f"{condition['type']} {condition['reason']} has no message"


def check_settled(cluster: FakeCluster) -> None:
    """I3 and I6, after the cluster has settled."""
    pods = {p["metadata"]["uid"]: p for p in cluster.of("pods")}
    reserved = {a["podUID"]: (node, set(a["devices"])) for node, a in cluster.ledger()}
    for uid, (node, devices) in reserved.items():
        assert uid in pods, f"a reservation of {devices} was leaked"
        held = [device_of(u) for u, holder in cluster.kubelets[node].items() if holder == uid]
        assert sorted(held) == sorted(devices)
    _check_claims(cluster, pods, reserved)
    for workload in cluster.of("workloads"):
        _check_workload(cluster, workload, pods, reserved)
    owners = sorted(s["metadata"]["ownerReferences"][0]["uid"] for s in cluster.of("services"))
    named = [w for w in cluster.of("workloads") if w["spec"]["network"]["enableDNSHostnames"]]
    assert owners == sorted(w["metadata"]["uid"] for w in named), "one Service for each workload with host names"


def _check_claims(cluster: FakeCluster, pods: dict[str, Json], reserved: Reserved) -> None:
    """Each claim belongs to a pod, and has the devices of its reservation."""
    claims = {c["metadata"]["ownerReferences"][0]["uid"]: c for c in cluster.of("claims")}
    assert len(claims) == len(cluster.of("claims")), "a pod has two claims"
    assert claims.keys() <= pods.keys(), "a claim was leaked"
    for uid, pod in pods.items():
        if claim_of(pod) is not None and uid in reserved:
            assert {uuid for uuid, _ in claimed_devices(claims[uid])} == reserved[uid][1]


def _check_workload(cluster: FakeCluster, workload: Json, pods: dict[str, Json], reserved: Reserved) -> None:
    spec, status = workload["spec"], workload["status"]
    mine = [p for p in pods.values() if p["metadata"]["ownerReferences"][0]["uid"] == workload["metadata"]["uid"]]
    placements = status.get("placements", [])  # absent when no replica is wanted
    conditions = {c["type"]: c for c in status["conditions"]}
    if finished := next((k for k in ("Complete", "Failed") if conditions[k]["status"] == "True"), None):
        assert not [p for p in mine if p["status"]["phase"] not in ("Succeeded", "Failed")], f"{finished} with pods"
        assert not [p for p in mine if p["metadata"]["uid"] in reserved], f"{finished} with devices"
        assert "Ready" not in conditions or conditions["Ready"]["status"] == "False"
        return  # it keeps the placements that it ended with, whatever `replicas` says afterwards
    assert [p["replica"] for p in placements] == list(range(spec["replicas"]))
    assert "Failed" not in {p["state"] for p in placements}, "a replica that failed starts again, or the workload ends"
    if spec.get("suspend"):
        assert all(p["status"]["phase"] in ("Succeeded", "Failed") for p in mine)
        return
    open_ones = [p for p in placements if p["state"] not in ("Succeeded", "Failed")]
    active = [p for p in mine if p["status"]["phase"] not in ("Succeeded", "Failed")]
    attempts = {str(p["replica"]): str(p.get("attempt", 0)) for p in open_ones}
    labels = [p["metadata"]["labels"] for p in active]
    assert {found[REPLICA_LABEL]: found[ATTEMPT_LABEL] for found in labels} == attempts
    assert len(active) == len(open_ones)
    for placement in open_ones:
        if placement["state"] == "Pending":
            assert conditions["Placed"]["status"] == "False"
            assert status["explanation"]["message"], "a gated pod has a reason"
            assert not _can_place(cluster, spec, open_ones), f"{workload['metadata']['name']} could be placed"
        else:
            assert placement["state"] == "Allocated"
            assert reserved[placement["podUID"]] == (placement["node"], set(placement["devices"]))
    if spec.get("updateStrategy", {}).get("type") != "OnDelete" and conditions["Placed"]["status"] == "True":
        image = spec["template"]["spec"]["containers"][0]["image"]
        active = [p for p in mine if p["status"]["phase"] not in ("Succeeded", "Failed")]
        assert {p["spec"]["containers"][0]["image"] for p in active} <= {image}, "pods of an older template are left"
    if distribution := spec.get("distribution"):
        _check_shares(distribution["items"], [p for p in placements if "shardStart" in p], spec["replicas"])


def _can_place(cluster: FakeCluster, spec: Json, placements: list[Json]) -> bool:
    """Whether more of the workload would fit, on free devices or free shares that are not earmarked for another."""
    devices = spec["devices"]
    # Free devices of such a node may be kept for another workload, for as long as its other devices are in use.
    earmarked = {node for other in cluster.of("workloads") if other["spec"] is not spec for node in _earmarked(other)}
    nodes = [n["metadata"]["name"] for n in cluster.of("nodes") if not n["spec"].get("unschedulable")]
    usable = [name for name in nodes if name not in earmarked]
    fits = sum(_fits(cluster, node, devices["count"], devices.get("memoryMiB")) for node in usable)
    waiting = sum(p["state"] == "Pending" for p in placements)
    return bool(fits >= (waiting if spec["placement"].get("gang") else 1))


def _earmarked(workload: Json) -> list[str]:
    """Returns the nodes with devices that are earmarked for a workload, as its status says."""
    earmark = workload["status"].get("explanation", {}).get("earmark", {})
    return list(earmark.get("nodes", ()))


def _fits(cluster: FakeCluster, node: str, count: int, memory: int | None) -> int:
    """Replicas that fit on a node: r do when sum(min(parts, r)) is at least r times `count`."""
    taken: dict[str, list[int]] = {uuid: [] for uuid in cluster.devices(node)}
    for name, assignment in cluster.ledger():
        for uuid in assignment["devices"] if name == node else ():
            taken[uuid].append(assignment.get("memoryMiB", DEVICE_MEMORY_MIB))
    parts = []
    for index, found in enumerate(taken.values()):
        if memory is None:
            parts.append(0 if found else 1)
        else:
            parts.append((DEVICE_MEMORY_MIB - max(sum(found), 10 * index)) // memory)
    replicas = 0
    while sum(min(part, replicas + 1) for part in parts) >= (replicas + 1) * count:
        replicas += 1
    return replicas


def _check_shares(items: int, shares: list[Json], replicas: int) -> None:
    if len(shares) == replicas:
        position = 0
        for share in sorted(shares, key=lambda s: s["replica"]):
            assert share["shardStart"] == position
            position = share["shardEnd"]
        assert position == items
