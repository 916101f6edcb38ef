"""The memory of a shared device is not limited: the agent reports who uses how much, and who more than promised."""

from collections.abc import Mapping
from functools import partial

from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_e2e.support.api import JsonObject, events
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_simgpu.model import SimProcess

PART = 20_000
"""MiB promised to each of the two."""
OVER = 26_000
WITHIN = {"greedy": 19_000, "modest": 15_000}
UTILIZATION = {"greedy": 60, "modest": 25}
OTHERS = 18_000
"""MiB of a process outside of pods."""

NOTICED_SECONDS = 30
"""Processes are listed and looked up every 5 s: twice in a row for a beginning, three times for an end."""


USED = "gpufleet_agent_share_memory_used_bytes"
OVERUSED = "gpufleet_agent_share_memory_overused"
EPISODES = "gpufleet_agent_share_overuse_episodes_total"
REASON = "MemoryOveruse"


def test_overuse_is_reported_until_memory_is_freed(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the agent looks up each process that the driver lists in the node's own /proc.

    The driver lists processes that run: two of each container, by their PIDs in the node's PID namespace, and one of
    the node itself. First one of the two sharers uses too much, then the other, which is deleted meanwhile.
    """
    shared = Sharers(namespace, fleet)
    shared.use(WITHIN)
    eventually(lambda: shared.none_over(WITHIN), within=NOTICED_SECONDS)
    eventually(shared.utilization_is_attributed, within=NOTICED_SECONDS)
    assert not shared.messages()

    shared.use({**WITHIN, "greedy": OVER})
    eventually(lambda: shared.is_over("greedy"), within=NOTICED_SECONDS)
    assert shared.messages().keys() == {"greedy"}
    index = fleet.gpus[shared.node].uuids.index(shared.uuid)
    words = f"Container main uses {OVER} MiB of GPU {index} ({shared.uuid}), but was promised {PART} MiB"
    assert shared.messages()["greedy"] == [words]

    shared.use(WITHIN)
    eventually(lambda: shared.none_over(WITHIN), within=NOTICED_SECONDS)
    assert shared.messages() == {"greedy": [words]}, "the end of overuse was recorded on the pod"

    shared.use({**WITHIN, "modest": OVER})
    eventually(lambda: shared.is_over("modest"), within=NOTICED_SECONDS)
    assert {name: len(messages) for name, messages in shared.messages().items()} == {"greedy": 1, "modest": 1}
    assert shared.episodes() == 2

    namespace.delete("modest")
    eventually(lambda: shared.is_alone("greedy"), within=NOTICED_SECONDS)
    namespace.verify("greedy")


class Sharers:
    """`greedy` and `modest` on one device, each with two processes, and what is reported of them."""

    def __init__(self, namespace: TestNamespace, fleet: Fleet) -> None:
        self.node = fleet.nodes[1]
        self.uuid = fleet.gpus[self.node].uuids[4]
        self._namespace, self._fleet = namespace, fleet
        asked = {"mode": "Shared", "memoryMiB": PART}
        namespace.apply(*(gpuworkload(name, devices=asked, uuids=(self.uuid,)) for name in WITHIN))
        namespace.verify(*WITHIN)
        found = {name: namespace.pod(name) for name in WITHIN}
        self._pods = {name: pod["metadata"] for name, pod in found.items()}
        self._names = {pod["name"]: name for name, pod in self._pods.items()}
        self._pids = {
            name: eventually(partial(fleet.processes, self.node, pod), within=30) for name, pod in found.items()
        }
        self._host = int(fleet.node(self.node).run(["pgrep", "-o", "-x", "kubelet"]).stdout)
        self._before = fleet.agent_metric(self.node, EPISODES)

    def use(self, memory: Mapping[str, int]) -> None:
        """Makes the driver report that the processes of each use this many MiB together."""
        processes = [SimProcess(self._host, OTHERS)]
        for name, total in memory.items():
            first, second = self._pids[name]
            processes += [
                SimProcess(first, total // 3, sm_percent=UTILIZATION[name]),
                SimProcess(second, total - total // 3, sm_percent=0),
            ]
        used = sum(process.memory_mib for process in processes)
        self._fleet.gpus[self.node].report(self.uuid, processes=tuple(processes), memory_used_mib=used)

    def none_over(self, memory: Mapping[str, int]) -> None:
        """Asserts that all sources report the use of both, and none of them over its promise."""
        used = {name: self._metric(USED, name) / BYTES_PER_MIB for name in memory}
        assert used == memory, f"the agent's metrics report {used}"
        self._over_are()

    def utilization_is_attributed(self) -> None:
        """Asserts that metrics and telemetry report the utilization of each."""
        ratios = {name: self._metric("gpufleet_container_gpu_utilization_ratio", name) for name in UTILIZATION}
        assert ratios == {name: percent / 100 for name, percent in UTILIZATION.items()}
        holders = {self._names[holder["pod"]]: holder.get("utilizationPercent") for holder in self._holders()}
        assert holders == UTILIZATION

    def is_over(self, name: str) -> None:
        """Asserts that all sources report only this one as over."""
        self._over_are(name)
        (overuse,) = [holder["overuse"] for holder in self._holders() if self._names[holder["pod"]] == name]
        assert overuse["memoryUsedMiB"] == OVER, overuse
        assert self._metric(USED, name) == OVER * BYTES_PER_MIB
        assert name in self.messages(), f"no event {REASON} on the pod of {name}"

    def is_alone(self, name: str) -> None:
        """Asserts that this one is the only holder, and not over."""
        assert [self._names[holder["pod"]] for holder in self._holders()] == [name]
        assert self._fleet.agent_metric(self.node, OVERUSED, UUID=self.uuid) == 0
        self._over_are()

    def messages(self) -> dict[str, list[str]]:
        """Reads the messages of the events on pods, by workload."""
        found: dict[str, list[str]] = {}
        for event in self._fleet.api.list(events(self._namespace.name)):
            if event["reason"] == REASON:
                pod = event["involvedObject"]
                name = self._names[pod["name"]]
                assert (pod["kind"], pod["uid"]) == ("Pod", self._pods[name]["uid"])
                found.setdefault(name, []).append(event["message"])
        return found

    def episodes(self) -> float:
        """Reads how many episodes began since construction."""
        return self._fleet.agent_metric(self.node, EPISODES) - self._before

    def _over_are(self, *names: str) -> None:
        reported = {self._names[holder["pod"]] for holder in self._holders() if "overuse" in holder}
        assert reported == set(names), f"telemetry reports {reported} as over"
        counted = {name for name in self._pods if self._metric(OVERUSED, name)}
        assert counted == set(names), f"metrics report {counted} as over"

    def _holders(self) -> list[JsonObject]:
        devices = self._fleet.telemetry(self.node)["status"]["devices"]
        return next(list(device.get("allocatedTo", [])) for device in devices if device["uuid"] == self.uuid)

    def _metric(self, metric: str, name: str) -> float:
        of = {
            "UUID": self.uuid,
            "namespace": self._namespace.name,
            "pod": self._pods[name]["name"],
            "container": "main",
        }
        return self._fleet.agent_metric(self.node, metric, **of)
