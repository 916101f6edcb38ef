"""The file kept equal to what the agent knows, on file systems of all tempers."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from gpufleet_agent.devices.base import DeviceInfo, Recovery
from gpufleet_agent.faults.file.store import CheckpointFile
from gpufleet_agent.faults.file.writer import CheckpointWriter
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.saved_state import Checkpoint, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState


def known(*sick: str, last: float = 10.0) -> Checkpoint:
    """Two devices, of which these have an XID."""
    reasons = (HealthReason("XidError", "XID 79", 10.0, Recovery.RESET),)
    devices = {}
    for index in range(2):
        uuid = f"GPU-{index}"
        health = (
            HealthSnapshot(HealthState.UNHEALTHY, reasons, 10.0)
            if uuid in sick
            else HealthSnapshot(HealthState.HEALTHY)
        )
        last_by_code = {"XidError": last} if uuid in sick else {}
        devices[uuid] = SavedDevice(DeviceInfo(uuid, index, "Sim"), health, last_by_code)
    return Checkpoint(SavedState(20.0, "580.1", devices))


class Bench:
    """A checkpoint writer with a state and counters that a test controls."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self.registry = CollectorRegistry()
        self.changes = VersionSignal()
        self.knows: Checkpoint | None = known()
        self.taken: list[Checkpoint] = []
        self.rounds = 0
        usual: dict[str, Any] = {"node": "node-1", "boot_id": "boot-1", "check_seconds": 0.05, "patience_seconds": 20}
        self.keeper = CheckpointWriter(
            folder,
            state=self,
            changes=self.changes,
            counters=Instruments(self.registry, "1"),
            **{**usual, **options},
        )

    def collect(self) -> Checkpoint | None:
        return self.knows

    def restore(self, checkpoint: Checkpoint) -> None:
        self.taken.append(checkpoint)

    def _beat(self) -> None:
        self.rounds += 1

    def learn(self, knows: Checkpoint) -> None:
        self.knows = knows
        self.changes.notify()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"gpufleet_agent_{name}", labels)

    def writes(self, outcome: str = "Written") -> float:
        return self.value("checkpoint_writes_total", outcome=outcome) or 0.0

    @property
    def current(self) -> float | None:
        return self.value("checkpoint_current", path=str(self.folder / "faults.json"))

    def sick(self) -> list[str]:
        path = self.folder / "faults.json"
        devices = json.loads(path.read_bytes())["devices"] if path.exists() else []
        return [device["uuid"] for device in devices if device["faults"]]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - files and counters have no signal
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.keeper.start()
        task = asyncio.create_task(self.keeper.run(self._beat))
        try:
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.keeper.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_what_one_agent_keeps_the_next_one_takes_over(folder: Path) -> None:
    first = Bench(folder)
    async with first.running():
        await first.until(lambda: first.writes() == 1)
        first.learn(known("GPU-1"))
        await first.until(lambda: first.sick() == ["GPU-1"])
    assert (first.taken, first.writes(), first.current) == ([], 2, 1)
    second = Bench(folder)
    second.knows = None  # not before the driver has said which devices there are
    async with second.running():
        assert [one.state.devices for one in second.taken] == [known("GPU-1").state.devices]
        second.learn(known("GPU-1"))
    assert second.writes() == 0, "it says the same"


@pytest.mark.parametrize(
    "knows", [None, Checkpoint(SavedState(1.0, None, {}))], ids=["nothing known yet", "no devices"]
)
def test_without_devices_there_is_no_file(folder: Path, knows: Checkpoint | None) -> None:
    async def main() -> None:
        bench = Bench(folder)
        bench.knows = knows
        async with bench.running():
            await bench.until(lambda: bench.rounds == 4)
        assert bench.current == 1

    asyncio.run(main())
    assert not folder.exists()


async def test_what_comes_at_the_very_end_is_kept(folder: Path) -> None:
    bench = Bench(folder, check_seconds=60)
    async with bench.running():
        await bench.until(lambda: bench.writes() == 1)
        bench.knows = known("GPU-0")
    assert bench.sick() == ["GPU-0"]


async def test_what_comes_while_an_older_state_is_being_written_at_the_end_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, real = threading.Event(), threading.Event(), CheckpointFile.write
    goes_on.set()

    def write(file: CheckpointFile, content: bytes) -> None:
        begun.set()
        goes_on.wait()
        real(file, content)

    monkeypatch.setattr(CheckpointFile, "write", write)

    bench = Bench(folder)
    async with bench.running():
        await bench.until(lambda: bench.writes() == 1)
        goes_on.clear()
        begun.clear()
        bench.learn(known("GPU-0"))
        await bench.until(begun.is_set)
        bench.learn(known("GPU-0", "GPU-1"))
        asyncio.get_running_loop().call_later(0.05, goes_on.set)
    assert bench.sick() == ["GPU-0", "GPU-1"]


async def test_future_time_is_replaced_after_the_clock_was_set_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpufleet_agent.faults.file.rate_limit.INTERVAL_SECONDS", 0.05)

    bench = Bench(folder)
    async with bench.running():
        await bench.until(lambda: bench.writes() == 1)
        bench.learn(Checkpoint(replace(known().state, reported_at=5.0)))
        await bench.until(lambda: bench.writes() == 2)
        assert json.loads((folder / "faults.json").read_bytes())["written"] == 5
        bench.learn(known())
        rounds = bench.rounds
        await bench.until(lambda: bench.rounds > rounds + 3)
    assert bench.writes() == 2, "that it grew older is no news"


async def test_unreadable_file_is_renamed_and_not_overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Bench(folder)
    first.knows = known("GPU-1")
    async with first.running():
        await first.until(lambda: first.writes() == 1)
    kept = (folder / "faults.json").read_bytes()

    def fail(_: CheckpointFile) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(CheckpointFile, "read", fail)
    bench = Bench(folder)
    async with bench.running():
        await bench.until(lambda: bench.writes() == 1)
    assert bench.value("decode_errors_total", part="Checkpoint") == 1
    assert (folder / "faults.json.unreadable").read_bytes() == kept


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b'{"format": "gpufleet-faults/0"}', "format is gpufleet-faults/0"),
        (b'{"format": "gpufleet-faults/1", "devices": [], "acknowledged": []}', "KeyError"),
    ],
)
async def test_a_file_that_is_not_ours_is_named_counted_set_aside_and_replaced(
    folder: Path, content: bytes, reason: str
) -> None:
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs yet
    (folder / "faults.json").write_bytes(content)

    bench = Bench(folder)
    with capture_logs() as logs:
        async with bench.running():
            await bench.until(lambda: bench.writes() == 1)
    (said,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert said["path"] == str(folder / "faults.json")
    assert reason in said["reason"]
    assert bench.value("decode_errors_total", part="Checkpoint") == 1
    assert (folder / "faults.json.unreadable").read_bytes() == content


async def test_failed_write_is_logged_once_counted_and_retried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = CheckpointFile.write
    problems = ["Read-only file system", "Read-only file system", "No space left on device"]

    def write(file: CheckpointFile, content: bytes) -> None:
        if problems:
            raise OSError(problems.pop(0))
        real(file, content)

    monkeypatch.setattr(CheckpointFile, "write", write)
    monkeypatch.setattr("gpufleet_agent.faults.file.rate_limit.INTERVAL_SECONDS", 0.05)

    bench = Bench(folder)
    bench.knows = known("GPU-0")
    with capture_logs() as logs:
        async with bench.running():
            await bench.until(lambda: bench.writes("Failed") == 1)
            assert bench.current == 0
            await bench.until(lambda: bench.writes() == 1)
    assert (bench.writes("Failed"), bench.current, bench.sick()) == (3, 1, ["GPU-0"])
    errors = [entry["error"] for entry in logs if entry["log_level"] == "error"]
    assert errors == ["Read-only file system", "No space left on device"]


async def test_removed_file_is_written_again(folder: Path) -> None:
    bench = Bench(folder)
    bench.knows = known("GPU-0")
    async with bench.running():
        await bench.until(lambda: bench.writes() == 1)
        (folder / "faults.json").unlink()
        await bench.until(lambda: bench.writes() == 2)
        assert bench.sick() == ["GPU-0"]


async def test_hanging_disk_at_start_delays_only_the_restore(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Bench(folder)
    first.knows = known("GPU-1")
    async with first.running():
        await first.until(lambda: first.writes() == 1)
    hangs, real = threading.Event(), CheckpointFile.read
    monkeypatch.setattr(CheckpointFile, "read", lambda file: hangs.wait() and real(file))
    bench = Bench(folder, patience_seconds=0.02)
    async with bench.running():
        bench.learn(known())
        assert (bench.taken, bench.current) == ([], 0)
        assert bench.sick() == ["GPU-1"], "an unread file is not overwritten"
        hangs.set()
        await bench.until(lambda: bench.taken and bench.writes() == 1)
        assert bench.current == 1


async def test_slow_disk_recovers_without_anything_to_save(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, real = threading.Event(), CheckpointFile.read
    monkeypatch.setattr(CheckpointFile, "read", lambda file: goes_on.wait() and real(file))

    bench = Bench(folder, patience_seconds=0.02)
    bench.knows = None
    async with bench.running():
        assert bench.current == 0
        goes_on.set()
        await bench.until(lambda: bench.current == 1)


async def test_hanging_disk_later_gets_the_newest_state_afterwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, real = threading.Event(), CheckpointFile.write
    goes_on.set()
    monkeypatch.setattr(CheckpointFile, "write", lambda file, content: goes_on.wait() and real(file, content))

    bench = Bench(folder, patience_seconds=0.02)
    async with bench.running():
        await bench.until(lambda: bench.writes() == 1)
        goes_on.clear()
        bench.learn(known("GPU-0"))
        await bench.until(lambda: bench.current == 0)
        bench.learn(known("GPU-0", "GPU-1"))
        goes_on.set()
        await bench.until(lambda: bench.sick() == ["GPU-0", "GPU-1"])
        await bench.until(lambda: bench.current == 1)


@pytest.mark.parametrize("hangs", [False, True], ids=["well", "hanging"])
async def test_the_end_takes_no_longer_than_a_part_may(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    goes_on, real = threading.Event(), CheckpointFile.write
    if not hangs:
        goes_on.set()
    monkeypatch.setattr(CheckpointFile, "write", lambda file, content: goes_on.wait() and real(file, content))
    if hangs:
        monkeypatch.setattr("gpufleet_agent.faults.file.writer.CLOSE_SECONDS", 0.05)

    bench = Bench(folder)
    async with asyncio.timeout(20):
        await bench.keeper.start()
        await bench.keeper.close()
    assert bench.current == int(not hangs)
    goes_on.set()


async def test_a_torrent_of_xids_is_a_few_writes(folder: Path) -> None:
    bench = Bench(folder)
    async with bench.running():
        await bench.until(lambda: bench.writes() == 1)
        bench.learn(known("GPU-0"))
        await bench.until(lambda: bench.writes() == 2)
        for number in range(1, 500):
            bench.learn(known("GPU-0", last=10.0 + number))
            await asyncio.sleep(0)
        assert bench.writes() == 2, "that it came at all; when it came last is written in ten seconds"
    assert bench.writes() == 3, "or at the end"
