"""The whole agent on simulated GPUs, killed and started again: its file has faults that no status has."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpufleet_agent.agent import Agent
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.resources import MigStrategy
from gpufleet_simgpu.model import SimMig
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.agents import make_agent, running_agent
from gpufleet_testing.agent.kube_apis import JsonObjectApi
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.nvml import until_listening
from gpufleet_testing.simulated import Simulated

UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]
PARTITIONS = "gpufleet.dev/mig-1g.10gb"


class Disk:
    """The agent's file, and the power to have it as it was at another moment."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "faults.json"

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_bytes()) if self.path.exists() else {"devices": []}
        return found

    def faults(self) -> dict[str, list[str]]:
        return {one["uuid"]: [fault["code"] for fault in one["faults"]] for one in self.read()["devices"]}

    def edit(self, **fields: object) -> None:
        self.path.write_text(json.dumps({**self.read(), **fields}))

    async def until(self, condition: Callable[[dict[str, list[str]]], object]) -> bytes:
        """Wait for faults, as codes by UUID, on the disk; returns the file of that moment."""
        async with asyncio.timeout(20):
            while not condition(self.faults()):  # noqa: ASYNC110 - a file gives no notification of writes
                await asyncio.sleep(0.01)
        return self.path.read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


async def heartbeats(cluster: JsonObjectApi) -> None:
    """Wait for two reports."""
    seen: list[object] = [cluster.status.get("observedAt")]
    while len(seen) < 3:
        await cluster.until(lambda _: cluster.status.get("observedAt") != seen[-1])
        seen.append(cluster.status.get("observedAt"))


async def test_xid_that_was_never_published_outlives_the_agent(
    simulated: Simulated, kubelet: FakeKubelet, disk: Disk
) -> None:
    cluster = JsonObjectApi()
    well: dict[str, list[str]] = {uuid: [] for uuid in UUIDS}
    sick = {**well, UUIDS[1]: ["XidError"]}

    def agent(hardware: NvmlHardware) -> Agent:
        return make_agent(kubelet, cluster, hardware, state_dir=disk.path.parent)

    async with kubelet:
        first = NvmlHardware()
        async with running_agent(agent(first)):
            await until_listening(first)
            await cluster.until(lambda faults: faults == well)
            await disk.until(lambda faults: faults == well)
            cluster.away = True
            simulated.edit(lambda node: node.with_xid(2, 13).with_xid(1, 79))
            killed = await disk.until(lambda faults: faults == sick)
        disk.path.write_bytes(killed)
        assert cluster.faults() == well, "the status knows nothing"
        kubelet.plugins.clear()
        async with running_agent(agent(NvmlHardware())):
            await kubelet.until(kubelet.serving)
            assert kubelet.healthy() == {*UUIDS} - {UUIDS[1]}, "never offered, though the apiserver is away"
            cluster.away = False
            await cluster.until(lambda faults: faults == sick)
            reason = cluster.status["devices"][1]["health"]["reasons"][0]
            (kept,) = disk.read()["devices"][0]["faults"]
            assert (reason["message"], reason["recovery"]) == (kept["message"], "Reboot")
            before = cluster.status
            await cluster.acknowledge(cluster.status["observedAt"])
            await cluster.until(lambda faults: faults == well)
            killed = await disk.until(lambda faults: faults == well)
        disk.path.write_bytes(killed)
        cluster.status = before  # killed before a status was written
        kubelet.plugins.clear()
        async with running_agent(agent(NvmlHardware())):
            await kubelet.until(lambda: kubelet.serving() and kubelet.healthy() == {*UUIDS})
            await cluster.until(lambda faults: cluster.status is not before and faults == well)


@pytest.mark.parametrize("left", ["file", "nothing"])
async def test_with_mixed_only_the_file_has_partitions(
    *, simulated: Simulated, kubelet: FakeKubelet, disk: Disk, left: str
) -> None:
    node = make_node("h100", 2)
    migs = tuple(SimMig(f"MIG-{name}", "1g.10gb", index + 7, 9_984) for index, name in enumerate("ab"))
    simulated.write(node.with_gpu(1, mig_mode=1, migs=migs))

    cluster = JsonObjectApi()

    def agent(hardware: NvmlHardware) -> Agent:
        return make_agent(kubelet, cluster, hardware, state_dir=disk.path.parent, mig_strategy=MigStrategy.MIXED)

    async with kubelet:
        first = NvmlHardware(partitions=True)
        async with running_agent(agent(first)):
            await until_listening(first)
            await kubelet.until(lambda: kubelet.healthy(PARTITIONS) == {"MIG-a", "MIG-b"})
            simulated.edit(lambda node: node.with_xid(1, 79))
            killed = await disk.until(lambda faults: faults.get("MIG-a") == faults.get("MIG-b") == ["XidError"])
            await kubelet.until(lambda: kubelet.healthy(PARTITIONS) == set())
        disk.path.write_bytes(killed)
        kubelet.plugins.clear()
        if left == "nothing":
            disk.path.unlink()
        async with running_agent(agent(NvmlHardware(partitions=True))):
            await kubelet.until(lambda: kubelet.serving() and kubelet.serving(PARTITIONS))
            want = {"MIG-a", "MIG-b"} if left == "nothing" else set()
            assert kubelet.healthy(PARTITIONS) == want
            assert "MIG" not in json.dumps(cluster.status)


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({}, ["XidError"]),
        ({"bootId": "another"}, []),
        ({"driverVersion": "1.0"}, []),
        ({"format": "gpufleet-faults/0"}, []),
        ({"node": "node-2"}, []),
    ],
    ids=["as it was", "the node was booted", "another driver was loaded", "an old format", "another node's"],
)
async def test_file_without_object_counts_for_same_boot_and_driver(
    *, simulated: Simulated, kubelet: FakeKubelet, disk: Disk, fields: dict[str, str], codes: list[str]
) -> None:
    cluster = JsonObjectApi()
    async with kubelet:
        first = NvmlHardware()
        async with running_agent(make_agent(kubelet, cluster, first, state_dir=disk.path.parent)):
            await until_listening(first)
            await cluster.until(lambda faults: len(faults) == 4)
            simulated.edit(lambda node: node.with_xid(1, 79))
            await disk.until(lambda faults: faults.get(UUIDS[1]) == ["XidError"])
        disk.edit(**fields)
        fresh = JsonObjectApi()  # deleted and created again
        async with running_agent(make_agent(kubelet, fresh, NvmlHardware(), state_dir=disk.path.parent)):
            await fresh.until(lambda faults: len(faults) == 4)
            assert fresh.faults()[UUIDS[1]] == codes
            await disk.until(lambda faults: faults.get(UUIDS[1]) == codes and disk.read()["node"] == "node-1")
    odd = {"format", "node"} & fields.keys()
    assert disk.path.with_name("faults.json.unreadable").exists() == bool(odd)


async def test_at_rest_nothing_is_written(simulated: Simulated, kubelet: FakeKubelet, disk: Disk) -> None:
    def written() -> tuple[int, int]:
        # Each write is a new file; reading, as the next agent does, changes the time of access alone.
        found = disk.path.stat()
        return found.st_ino, found.st_mtime_ns

    cluster = JsonObjectApi()
    async with kubelet:
        async with running_agent(make_agent(kubelet, cluster, NvmlHardware(), state_dir=disk.path.parent)):
            await disk.until(lambda faults: len(faults) == 4)
            before = written()
            await heartbeats(cluster)
            assert written() == before, "written, though nothing happened in two heartbeats"
        assert written() == before, "written at the end, though nothing had happened"
        async with running_agent(make_agent(kubelet, cluster, NvmlHardware(), state_dir=disk.path.parent)):
            await heartbeats(cluster)
        assert written() == before, "written by the next one"


async def test_agent_continues_when_the_file_cannot_be_written(
    simulated: Simulated, kubelet: FakeKubelet, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("no directory")

    cluster, hardware = JsonObjectApi(), NvmlHardware()
    async with kubelet, running_agent(make_agent(kubelet, cluster, hardware, state_dir=tmp_path / "state")):
        await until_listening(hardware)
        await kubelet.until(lambda: kubelet.serving() and len(kubelet.healthy()) == 4)
        simulated.edit(lambda node: node.with_xid(1, 79))
        await cluster.until(lambda faults: faults.get(UUIDS[1]) == ["XidError"])
