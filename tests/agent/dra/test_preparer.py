"""What becomes of a claim that the kubelet asks to prepare: files, waits and errors."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gpufleet_agent.dra.claim_files import ClaimFiles
from gpufleet_agent.dra.claim_registry import ClaimRegistry
from gpufleet_agent.dra.preparer import ClaimError, ClaimPreparer, ClaimRef
from gpufleet_agent.kube.resource_claims import AllocatedClaim, parse_claim
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.plugin.inject.device_files import DeviceFiles
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.podresources.holdings import OtherHolder, OtherHolders
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_api.names import DRA_DRIVER
from gpufleet_testing.agent.dra import NODE, DraObjectApi, claim, claim_json, gpu, gpus
from gpufleet_testing.agent.objects import assignment
from gpufleet_testing.agent.sampling import until

FIRST, SECOND = claim("a", "GPU-0"), claim("b", "GPU-0")
SHORT = 0.2


def ref(found: AllocatedClaim) -> ClaimRef:
    return ClaimRef(found.namespace, found.name, found.uid)


class Rig:
    """A preparer, the apiserver, and the processes of pods."""

    def __init__(
        self,
        folder: Path,
        *,
        living: Callable[[frozenset[str]], frozenset[str]] | None = None,
        device_files: DeviceFiles | None = None,
        visible: str | None = None,
    ) -> None:
        self.api = DraObjectApi()
        self.api.add(FIRST, SECOND)
        self.files = ClaimFiles(folder / "cdi")
        self.registry = ClaimRegistry()
        self.alive: set[str] = set()
        self.holders: OtherHolders = {}
        self.gpus = gpus(gpu(0), gpu(1))
        self.telemetry = TelemetryWatch(self.api, VersionSignal(), random.Random(1))  # noqa: S311 - jitter
        self.preparer = ClaimPreparer(
            read=self.read,
            telemetry=self.telemetry,
            gpus=lambda: self.gpus,
            device_files=device_files,
            files=self.files,
            registry=self.registry,
            holders=lambda: self.holders,
            living=living or (lambda uids: frozenset(uids & self.alive)),
            visible=visible,
            patience_seconds=10.0,
            retry_seconds=0.01,
        )

    async def read(self, namespace: str, name: str) -> AllocatedClaim:
        return parse_claim(await self.api.get_claim(namespace, name), DRA_DRIVER, NODE)

    async def prepare(self, found: AllocatedClaim, seconds: float = 10.0) -> None:
        await self.preparer.prepare(ref(found), asyncio.get_running_loop().time() + seconds)

    async def error(self, found: AllocatedClaim) -> str:
        with pytest.raises(ClaimError) as raised:
            await self.prepare(found, SHORT)
        return str(raised.value)


@asynccontextmanager
async def rig(
    folder: Path,
    *,
    living: Callable[[frozenset[str]], frozenset[str]] | None = None,
    device_files: DeviceFiles | None = None,
    visible: str | None = None,
) -> AsyncIterator[Rig]:
    made = Rig(folder, living=living, device_files=device_files, visible=visible)
    await made.preparer.start()
    try:
        yield made
    finally:
        await made.preparer.close()


async def test_claim_has_files_from_prepare_to_unprepare(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        await one.prepare(FIRST)
        (known,) = one.files.load().values()
        assert (known.name, [device.uuid for device in known.devices]) == ("claim-a", ["GPU-0"])
        assert known.env["gpu"]["GPUFLEET_DEVICES"] == "GPU-0"
        await one.preparer.unprepare(ref(FIRST))
        assert one.files.load() == {}
        await one.preparer.unprepare(ref(FIRST))


async def test_second_prepare_changes_nothing_and_repairs_files(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        await one.prepare(FIRST)
        (tmp_path / "cdi" / f"{DRA_DRIVER}-claim-{FIRST.uid}.json").unlink()
        one.gpus = {}
        await one.prepare(FIRST, SHORT)
        assert (tmp_path / "cdi" / f"{DRA_DRIVER}-claim-{FIRST.uid}.json").exists()


async def test_next_process_knows_the_claims_of_the_one_before(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        await one.prepare(FIRST)
        one.alive = {"uid-a"}
    async with rig(tmp_path) as two:
        two.alive = {"uid-a"}
        assert "device GPU-0 is still prepared for claim ml/claim-a (pod a)" in await two.error(SECOND)


async def test_claim_waits_until_the_other_is_unprepared_and_its_process_is_gone(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        await one.prepare(FIRST)
        one.alive = {"uid-a"}
        waiting = asyncio.create_task(one.prepare(SECOND))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        # A kubelet that was restarted unprepares the claim of a pod that it has forgotten, while its container runs.
        await one.preparer.unprepare(ref(FIRST))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        one.alive = set()
        await waiting
        assert set(one.files.load()) == {SECOND.uid}


async def test_processes_are_looked_for_when_a_claim_is_unprepared(tmp_path: Path) -> None:
    looks: list[frozenset[str]] = []

    def living(uids: frozenset[str]) -> frozenset[str]:
        looks.append(uids)
        return frozenset()

    async with rig(tmp_path, living=living) as one:
        await one.prepare(FIRST)
        await one.preparer.unprepare(ref(FIRST))
        await until(lambda: not one.registry.others(SECOND.uid))
        assert looks == [{"uid-a"}]
        await one.prepare(SECOND)
        assert looks == [{"uid-a"}]


async def test_claim_that_is_prepared_again_meanwhile_is_kept(tmp_path: Path) -> None:
    """A claim of a user may serve one pod after the other."""
    entered, leave = threading.Event(), threading.Event()

    def living(uids: frozenset[str]) -> frozenset[str]:
        del uids
        entered.set()
        leave.wait(5)
        return frozenset()

    async with rig(tmp_path, living=living) as one:
        await one.prepare(FIRST)
        await one.preparer.unprepare(ref(FIRST))
        await asyncio.to_thread(entered.wait, 5)
        await one.prepare(FIRST)
        leave.set()
        await asyncio.sleep(0.05)
        assert [each.uid for each in one.registry.prepared] == [FIRST.uid]


async def test_claim_of_a_gone_pod_that_was_never_unprepared_is_removed(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        await one.prepare(FIRST)
        assert "still prepared" in await one.error(SECOND), "its container has not started yet"
        del one.api.claims["ml", "claim-a"]
        await one.prepare(SECOND)
        assert set(one.files.load()) == {SECOND.uid}


async def test_claim_that_cannot_be_read_is_read_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        one.api.claim_failures = 3
        await one.prepare(FIRST)
        one.api.claim_failures = 1000
        assert await one.error(SECOND) == "away"


async def test_claim_that_is_another_one_is_rejected_without_waiting(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        later = claim_json(FIRST)
        later["metadata"]["uid"] = "later"
        one.api.claims["ml", "claim-a"] = later
        assert await one.error(FIRST) == "claim ml/claim-a has UID later now, not claim-uid-a"
        del one.api.claims["ml", "claim-a"]
        assert await one.error(FIRST) == "claim ml/claim-a does not exist"
        one.api.add(claim("a"))
        assert await one.error(claim("a")) == "claim ml/claim-a has no device of this node"


async def test_reservation_made_after_the_last_read_is_seen(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        await one.api.reserve(assignment("a", "GPU-0", replica=3, replicas=4))
        await one.prepare(FIRST)
        (known,) = one.files.load().values()
        assert known.env["gpu"]["GPUFLEET_REPLICA"] == "3"


async def test_reservation_made_right_after_a_read_is_seen_by_the_next_claim(tmp_path: Path) -> None:
    """The watch is late. Claims that come together share a read that begins after all of them."""
    async with rig(tmp_path) as one:
        await one.prepare(FIRST)
        others = [claim("c", "GPU-1"), claim("d", "GPU-2"), claim("e", "GPU-3")]
        one.gpus = gpus(*(gpu(index) for index in range(4)))
        one.api.add(*others)
        await one.api.reserve(*(assignment(pod, f"GPU-{index}", replica=index) for index, pod in enumerate("cde", 1)))
        before = one.api.reads
        await asyncio.gather(*map(one.prepare, others))
        known = one.files.load()
        assert [known[each.uid].env["gpu"]["GPUFLEET_REPLICA"] for each in others] == ["1", "2", "3"]
        assert one.api.reads - before <= 2


async def test_claim_waits_for_the_end_of_a_reservation_of_another_pod(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        await one.api.reserve(assignment("other", "GPU-0"))
        waiting = asyncio.create_task(one.prepare(FIRST))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await one.api.reserve()
        await waiting


async def test_claim_waits_for_a_container_that_has_the_device_by_a_plugin(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        one.holders = {"GPU-0": (OtherHolder(ContainerKey("ml", "plain", "main"), "nvidia.com/gpu"),)}
        assert await one.error(FIRST) == "device GPU-0 is held by ml/plain/main as nvidia.com/gpu"
        waiting = asyncio.create_task(one.prepare(FIRST))
        one.holders = {}
        await waiting
        assert set(one.files.load()) == {FIRST.uid}


async def test_fault_that_needs_a_reset_is_reported_at_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        one.gpus = gpus(gpu(0, faults=("XidError",), may_recover=False))
        with pytest.raises(ClaimError, match="device GPU-0 is unhealthy: XidError"):
            await one.prepare(FIRST, 1000)


async def test_two_claims_at_once_never_get_the_same_device(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        results = await asyncio.gather(one.prepare(FIRST, SHORT), one.prepare(SECOND, SHORT), return_exceptions=True)
        assert [type(result) for result in results] in ([type(None), ClaimError], [ClaimError, type(None)])


async def test_container_gets_device_nodes_that_appear_while_the_claim_waits(tmp_path: Path) -> None:
    (tmp_path / "root" / "dev").mkdir(parents=True)
    devices = (AdvertisedDevice("GPU-0", 0, healthy=True, nodes=("/dev/nvidia0",)),)
    device_files = DeviceFiles(lambda: devices, tmp_path / "root", None, VersionSignal())
    async with rig(tmp_path, device_files=device_files, visible="void") as one:
        assert await one.error(FIRST) == "device GPU-0: no device node"
        (tmp_path / "root" / "dev" / "nvidia0").touch()
        await one.prepare(FIRST)
        content = (tmp_path / "cdi" / f"{DRA_DRIVER}-claim-{FIRST.uid}.json").read_text()
        assert str(tmp_path / "root" / "dev" / "nvidia0") in content
        assert "NVIDIA_VISIBLE_DEVICES=void" in content
        # A file that is right must not lose its nodes when they are away, as after the start of the agent.
        (tmp_path / "root" / "dev" / "nvidia0").unlink()
        assert await one.error(FIRST) == "device GPU-0: no device node"
        assert (tmp_path / "cdi" / f"{DRA_DRIVER}-claim-{FIRST.uid}.json").read_text() == content
        await device_files.close()


async def test_claim_that_the_kubelet_lists_gets_its_lost_files_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        await one.preparer.restore("ml", "claim-a")
        assert set(one.files.load()) == {FIRST.uid}
        await one.preparer.unprepare(ref(FIRST))
        await one.preparer.restore("ml", "claim-a")
        await one.preparer.restore("ml", "missing")
        assert one.files.load() == {}, "a list from before the end of the claim restores nothing"
