"""Nothing caps what a container uses of a shared device: whoever takes more than its part is named, and nobody else."""

from collections.abc import Mapping
from functools import partial

from gpufleet_e2e.support.api import JsonObject, events
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room
from gpufleet_simgpu.model import SimProcess

PART = 20_000
"""MiB that each of the two is promised."""
OVER = 26_000
WITHIN = {"greedy": 19_000, "modest": 15_000}
OTHERS = 18_000
"""MiB of a process that runs in no pod."""

NOTICED_SECONDS = 30
"""Processes are listed every 5 s, and looked up every 5 s: twice in a row for a beginning, three times for an end."""

BYTES_PER_MIB = 2**20

USED = "gpufleet_agent_share_memory_used_bytes"
OVERUSED = "gpufleet_agent_share_memory_overused"
EPISODES = "gpufleet_agent_share_overuse_episodes_total"
REASON = "MemoryOveruse"


def test_who_takes_more_than_its_part_is_named_until_it_gives_it_back(room: Room, fleet: Fleet) -> None:
    """Mechanism: the agent looks up each process that the driver lists in the node's own /proc.

    The driver lists what really runs: both processes of each container, by their numbers in the node's PID namespace,
    and one of the node itself. First one of the two sharers takes too much, then the other, which is deleted over it.
    """
    shared = Sharers(room, fleet)
    shared.use(WITHIN)
    eventually(lambda: shared.nobody_is_over(WITHIN), within=NOTICED_SECONDS)
    assert not shared.told()

    shared.use({**WITHIN, "greedy": OVER})
    eventually(lambda: shared.is_over("greedy"), within=NOTICED_SECONDS)
    assert shared.told().keys() == {"greedy"}
    index = fleet.gpus[shared.node].uuids.index(shared.uuid)
    words = f"container main uses {OVER} MiB of GPU {index} ({shared.uuid}), and was promised {PART} MiB"
    assert shared.told()["greedy"] == [words]

    shared.use(WITHIN)
    eventually(lambda: shared.nobody_is_over(WITHIN), within=NOTICED_SECONDS)
    assert shared.told() == {"greedy": [words]}, "an end is no news on the pod"

    shared.use({**WITHIN, "modest": OVER})
    eventually(lambda: shared.is_over("modest"), within=NOTICED_SECONDS)
    assert {name: len(messages) for name, messages in shared.told().items()} == {"greedy": 1, "modest": 1}
    assert shared.episodes() == 2

    room.delete("modest")
    eventually(lambda: shared.is_alone("greedy"), within=NOTICED_SECONDS)
    room.proven("greedy")


class Sharers:
    """`greedy` and `modest` on one device, each with two processes, and what is said of them."""

    def __init__(self, room: Room, fleet: Fleet) -> None:
        self.node = fleet.nodes[1]
        self.uuid = fleet.gpus[self.node].uuids[4]
        self._room, self._fleet = room, fleet
        asked = {"mode": "Shared", "memoryMiB": PART}
        room.apply(*(gpuworkload(name, devices=asked, uuids=(self.uuid,)) for name in WITHIN))
        room.proven(*WITHIN)
        self._pods = {name: room.pod(name)["metadata"] for name in WITHIN}
        self._names = {pod["name"]: name for name, pod in self._pods.items()}
        self._pids = {
            name: eventually(partial(self._processes, pod["name"]), within=5) for name, pod in self._pods.items()
        }
        self._host = int(fleet.node(self.node).run(["pgrep", "-o", "-x", "kubelet"]).stdout)
        self._before = fleet.agent_metric(self.node, EPISODES)

    def use(self, memory: Mapping[str, int]) -> None:
        """Let the driver say that the processes of each use so many MiB of the device, together."""
        processes = [SimProcess(self._host, OTHERS)]
        for name, total in memory.items():
            first, second = self._pids[name]
            processes += [SimProcess(first, total // 3), SimProcess(second, total - total // 3)]
        used = sum(process.memory_mib for process in processes)
        self._fleet.gpus[self.node].report(self.uuid, processes=tuple(processes), memory_used_mib=used)

    def nobody_is_over(self, memory: Mapping[str, int]) -> None:
        """Assert that everybody's use is known, and within the promise by every word."""
        used = {name: self._metric(USED, name) / BYTES_PER_MIB for name in memory}
        assert used == memory, f"the agent's metrics say {used}"
        self._over_are()

    def is_over(self, name: str) -> None:
        """Assert that this one, and nobody else, is over by every word."""
        self._over_are(name)
        (overuse,) = [holder["overuse"] for holder in self._holders() if self._names[holder["pod"]] == name]
        assert overuse["memoryUsedMiB"] == OVER, overuse
        assert self._metric(USED, name) == OVER * BYTES_PER_MIB
        assert name in self.told(), f"no event {REASON} on the pod of {name}"

    def is_alone(self, name: str) -> None:
        """Assert that this one is the only holder, and within its part."""
        assert [self._names[holder["pod"]] for holder in self._holders()] == [name]
        assert self._fleet.agent_metric(self.node, OVERUSED, UUID=self.uuid) == 0
        self._over_are()

    def told(self) -> dict[str, list[str]]:
        """Messages of the events on pods, by workload."""
        found: dict[str, list[str]] = {}
        for event in self._fleet.api.list(events(self._room.namespace)):
            if event["reason"] == REASON:
                pod = event["involvedObject"]
                name = self._names[pod["name"]]
                assert (pod["kind"], pod["uid"]) == ("Pod", self._pods[name]["uid"])
                found.setdefault(name, []).append(event["message"])
        return found

    def episodes(self) -> float:
        """How many began since this stands."""
        return self._fleet.agent_metric(self.node, EPISODES) - self._before

    def _over_are(self, *names: str) -> None:
        said = {self._names[holder["pod"]] for holder in self._holders() if "overuse" in holder}
        assert said == set(names), f"telemetry says that {said} are over"
        counted = {name for name in self._pods if self._metric(OVERUSED, name)}
        assert counted == set(names), f"metrics say that {counted} are over"

    def _holders(self) -> list[JsonObject]:
        devices = self._fleet.telemetry(self.node)["status"]["devices"]
        return next(list(device.get("allocatedTo", [])) for device in devices if device["uuid"] == self.uuid)

    def _metric(self, metric: str, name: str) -> float:
        of = {
            "UUID": self.uuid,
            "namespace": self._room.namespace,
            "pod": self._pods[name]["name"],
            "container": "main",
        }
        return self._fleet.agent_metric(self.node, metric, **of)

    def _processes(self, pod: str) -> tuple[int, ...]:
        """Both processes of the pod's container in the node's PID namespace: found by a variable, not by a cgroup."""
        listed = self._fleet.node(self.node).run(
            ["sh", "-c", f"grep -lszx HOSTNAME={pod} /proc/[0-9]*/environ"], check=False
        )
        found = tuple(int(path.split("/")[2]) for path in listed.stdout.split())
        assert len(found) == 2, f"processes of {pod}: {found} {listed.stderr}"
        return found
