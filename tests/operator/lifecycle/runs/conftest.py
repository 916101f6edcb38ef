"""Runs the operator's own loop, executor and caches on the world, and judges how it ends.

I1: no device is reserved twice, nor handed to a pod while another still has it, and no pod is let go without a
reservation. I3: a gated pod's workload says why. I6: when the faults stop, everything ends as if they had not been.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_common.device_ids import device_of
from gpufleet_operator.cache import decode, decode_pod
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.events import Recorder
from gpufleet_operator.model.snapshot import Limits
from gpufleet_operator.runtime.executor import Executor
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler

MEMORY = 1000
"""MiB of each device of a world."""

_PROJECTIONS: dict[str, Callable[[Any], Any]] = {
    "pods": decode_pod.pod,
    "telemetry": decode.telemetry,
    "workloads": decode.workload,
    "nodes": decode.node,
}


class Operator:
    """One process of the operator on a world; a new one knows nothing but what it lists."""

    def __init__(self, world: Any, runner: asyncio.Runner) -> None:
        self.world, self.runner = world, runner
        self.cache = Cache()
        clock = ServerClock(lambda: world.now)
        self.reconciler = Reconciler(
            self.cache,
            Executor(world, self.cache, clock, Recorder(world, "test")),
            Limits(),
            clock,
            Metrics(CollectorRegistry()),
            salt=lambda: f"{world.now}/{len(world.log)}",
            sweep_seconds=10,
        )
        self.position = 0
        self.relist()

    def relist(self) -> None:
        """Complete lists, as at start and in the resync."""
        self.position = len(self.world.log)
        for kind, store in self.stores().items():
            items = [_PROJECTIONS[kind](body) for body in self.world.of(kind)]
            store.replace(items, str(self.world._version))

    def stores(self) -> dict[str, Any]:
        cache = self.cache
        return {"pods": cache.pods, "telemetry": cache.telemetry, "workloads": cache.workloads, "nodes": cache.nodes}

    def hear(self, number: int, *, lose: bool = False) -> None:
        """The next events of the watches, or their loss."""
        for event, kind, body in self.world.log[self.position : self.position + number]:
            if not lose:
                self.see(event, kind, body)
        self.position = min(len(self.world.log), self.position + number)

    def see(self, event: str, kind: str, body: Any) -> None:
        view, store = _PROJECTIONS[kind](body), self.stores()[kind]
        if event != "DELETED":
            store.put(view)
        elif kind == "pods":
            store.left(view)
        else:
            store.remove(view.uid, view.resource_version)

    def act(self) -> None:
        self.runner.run(self.reconciler.one_pass())


class Judge:
    """Brings a world to rest and checks it."""

    operator = Operator

    def settle(self, world: Any, operator: Operator, rounds: int = 24, *, seconds: float = 7) -> None:
        """Everybody does his part, without faults, until the backoffs have ended as well."""
        world.fault = None
        world.refuse_binding.clear()
        world.refuse_admission.clear()
        world.silent.clear()
        for _ in range(rounds):
            operator.relist()
            for _ in range(3):
                operator.act()
            world.scheduler()
            for node in list(world.kubelets):
                if ("nodes", node) in world.objects:
                    world.kubelet(node)
                    world.agent(node)
            world.collector()
            world.advance(seconds)

    def check_always(self, world: Any) -> None:
        """I1 at every moment."""
        assert world.collisions == []
        for uid, node, reserved in world.released:
            assert node in reserved, f"{uid} was released to {node} without a reservation there"
        pods = {p["metadata"]["uid"] for p in world.of("pods")}
        claimed: dict[str, list[Any]] = {}
        for _, assignment in world.ledger():
            for uuid in assignment["devices"]:
                if assignment["podUID"] in pods:
                    claimed.setdefault(uuid, []).append(assignment.get("memoryMiB"))
        for uuid, promises in claimed.items():
            assert len(promises) == 1 or None not in promises, f"{uuid} reserved twice"
            assert sum(memory or 0 for memory in promises) <= MEMORY, f"more of {uuid} is promised than there is"

    def check_settled(self, world: Any) -> None:
        """I3 and I6, when nothing is under way any more."""
        pods = {p["metadata"]["uid"]: p for p in world.of("pods")}
        reserved = {a["podUID"]: (node, set(a["devices"])) for node, a in world.ledger()}
        for uid, (node, devices) in reserved.items():
            assert uid in pods, f"a reservation of {devices} was leaked"
            held = [device_of(u) for u, holder in world.kubelets[node].items() if holder == uid]
            assert sorted(held) == sorted(devices)
        for workload in world.of("workloads"):
            self.check_workload(world, workload, pods, reserved)

    def check_workload(self, world: Any, workload: Any, pods: Any, reserved: Any) -> None:
        spec, status = workload["spec"], workload["status"]
        mine = [p for p in pods.values() if p["metadata"]["ownerReferences"][0]["uid"] == workload["metadata"]["uid"]]
        placements = status["placements"]
        assert [p["replica"] for p in placements] == list(range(spec["replicas"]))
        conditions = {c["type"]: c for c in status["conditions"]}
        if spec.get("suspend"):
            assert all(p["status"]["phase"] in ("Succeeded", "Failed") for p in mine)
            return
        open_ones = [p for p in placements if p["state"] not in ("Succeeded", "Failed")]
        assert len([p for p in mine if p["status"]["phase"] not in ("Succeeded", "Failed")]) == len(open_ones)
        for placement in open_ones:
            if placement["state"] == "Pending":
                assert conditions["Placed"]["status"] == "False"
                assert status["explanation"]["message"], "a gated pod has a reason"
                assert not self.can_place(world, spec, open_ones), f"{workload['metadata']['name']} could be placed"
            else:
                assert placement["state"] == "Confirmed"
                assert reserved[placement["podUID"]] == (placement["node"], set(placement["devices"]))
        if distribution := spec.get("distribution"):
            self.check_shares(distribution["items"], [p for p in placements if "shardStart" in p], spec["replicas"])

    def can_place(self, world: Any, spec: Any, placements: Any) -> bool:
        """Whether more of the workload would fit, on devices that nobody has, or beside others' parts."""
        devices = spec["devices"]
        usable = [n["metadata"]["name"] for n in world.of("nodes") if not n["spec"].get("unschedulable")]
        fits = sum(self.fits(world, node, devices["count"], devices.get("memoryMiB")) for node in usable)
        waiting = sum(p["state"] == "Pending" for p in placements)
        return bool(fits >= (waiting if spec["placement"].get("gang") else 1))

    def fits(self, world: Any, node: str, count: int, memory: int | None) -> int:
        """Replicas that fit on a node: r do when sum(min(parts, r)) is at least r times `count`."""
        taken: dict[str, list[int]] = {uuid: [] for uuid in world.devices(node)}
        for name, assignment in world.ledger():
            for uuid in assignment["devices"] if name == node else ():
                taken[uuid].append(assignment.get("memoryMiB", MEMORY))
        parts = []
        for index, found in enumerate(taken.values()):
            if memory is None:
                parts.append(0 if found else 1)
            else:
                parts.append((MEMORY - max(sum(found), 10 * index)) // memory)
        replicas = 0
        while sum(min(part, replicas + 1) for part in parts) >= (replicas + 1) * count:
            replicas += 1
        return replicas

    def check_shares(self, items: int, shares: Any, replicas: int) -> None:
        if len(shares) == replicas:
            position = 0
            for share in sorted(shares, key=lambda s: s["replica"]):
                assert share["shardStart"] == position
                position = share["shardEnd"]
            assert position == items


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found
