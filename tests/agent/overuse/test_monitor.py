"""Who uses more than promised: what is said, when, and to whom."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from gpufleet_agent.devices.base import DeviceInfo, ProcessMemory, Sample
from gpufleet_agent.kube.model import PodEvent
from gpufleet_agent.overuse.episodes import BEGIN_CHECKS, END_CHECKS, OveruseEpisodes
from gpufleet_agent.overuse.memory_usage import MemoryUsage, PodLookup, memory_usages, relevant_processes
from gpufleet_agent.overuse.monitor import OveruseMonitor
from gpufleet_agent.podresources.holdings import HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.processes.pod_lookup import pods_of_process
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthSnapshot, HealthState, NodeSnapshot
from gpufleet_testing.agent.virtual_time import in_virtual_time

A = HoldingContainer(ContainerKey("ml", "a", "main"), "uid-a", shared=True, memory_mib=1000)
B = HoldingContainer(ContainerKey("ml", "b", "main"), "uid-b", shared=True, memory_mib=2000)
STRANGER = HoldingContainer(ContainerKey("ml", "c", "main"), shared=True)
STALE = 16.0
PODS = MappingProxyType({1: ("uid-a",), 2: ("uid-b",), 3: ("uid-c",), 4: (), 5: ("uid-outer", "uid-a")})


def device(
    *processes: tuple[int, int | None], used: int | None = 5000, listed: bool = True, age: float | None = 0.1
) -> DeviceSnapshot:
    found = tuple(ProcessMemory(pid, mib) for pid, mib in processes) if listed else None
    sample = Sample(uuid="GPU-0", taken_at=1.0, memory_used_mib=used, processes=found)
    return DeviceSnapshot(DeviceInfo("GPU-0", 0, "NVIDIA H100"), HealthSnapshot(HealthState.HEALTHY), sample, age)


@pytest.mark.parametrize(
    ("seen", "holders", "expected"),
    [
        pytest.param(device((1, 700), (2, 1500)), (A, B), [700, 1500], id="each process goes to its pod"),
        pytest.param(device((1, 700), (5, 400)), (A, B), [1100, 0], id="several add up, one in a nested cluster"),
        pytest.param(device((1, 700), (3, 9000), (4, 9000)), (A,), [700], id="strangers and the host don't count"),
        pytest.param(device((1, 700), (99, 10)), (A, B), [None, None], id="a process that can't be found"),
        pytest.param(device((1, None)), (A, B), [None, None], id="the driver does not report its memory"),
        pytest.param(device((1, None)), (A,), [5000], id="then the only holder answers for the device"),
        pytest.param(device(listed=False), (A,), [5000], id="no list of processes"),
        pytest.param(device(), (A,), [5000], id="an empty list, and memory in use: processes are hidden"),
        pytest.param(device(), (A, B), [None, None], id="the same of two holders"),
        pytest.param(device(used=3), (A, B), [0, 0], id="an empty list, and none in use"),
        pytest.param(device(listed=False), (A, STRANGER), [None], id="no list, and two holders"),
        pytest.param(device(listed=False, used=None), (A,), [None], id="nothing is known at all"),
        pytest.param(device((3, 9000)), (STRANGER,), [], id="nothing was promised"),
        pytest.param(device((1, 700), age=17.0), (A,), [None], id="the sample is too old to speak of now"),
        pytest.param(device(listed=False, age=None), (A,), [None], id="its age is unknown"),
    ],
)
def test_what_holders_use(
    seen: DeviceSnapshot, holders: tuple[HoldingContainer, ...], expected: list[int | None]
) -> None:
    assert [use.used_mib for use in memory_usages((seen,), {"GPU-0": holders}, PODS.get, STALE)] == expected


def test_processes_of_devices_without_promises_are_not_looked_up() -> None:
    def never(pid: int) -> tuple[str, ...]:
        raise AssertionError(f"process {pid} was looked up")

    for holders in ({"GPU-0": (STRANGER,)}, {}):
        assert memory_usages((device((3, 1)),), holders, never, STALE) == ()
        assert relevant_processes((device((3, 1)),), holders, STALE) == frozenset()
    assert relevant_processes((device((3, 1), (7, 1)),), {"GPU-0": (A,)}, STALE) == {3, 7}
    assert relevant_processes((device((3, 1), age=17.0),), {"GPU-0": (A,)}, STALE) == frozenset()


def use(used: int | None, pod: str = "a") -> MemoryUsage:
    return MemoryUsage("GPU-0", 0, ContainerKey("ml", pod, "main"), f"uid-{pod}", 1000, used)


def course(*numbers: int | None) -> list[tuple[int, int, int]]:
    """OveruseEpisodes begun, ended and standing at each look."""
    episodes = OveruseEpisodes()
    reported = []
    for second, number in enumerate(numbers):
        begun, ended = episodes.check([use(number)], float(second))
        reported.append((len(begun), len(ended), len(episodes.active)))
    return reported


def test_an_episode_begins_and_ends_once() -> None:
    assert BEGIN_CHECKS == 2
    assert END_CHECKS == 3
    assert course(1001, 1001, 1500, 1000, 900, 900, 900) == [
        (0, 0, 0),
        (1, 0, 1),
        (0, 0, 1),
        (0, 0, 1),
        (0, 0, 1),
        (0, 1, 0),
        (0, 0, 0),
    ]


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param((1001, 1000) * 10, id="flickers around the promise"),
        pytest.param((1000,) * 10, id="uses exactly what was promised"),
        pytest.param((None,) * 10, id="usage is unknown"),
    ],
)
def test_no_episode(numbers: tuple[int | None, ...]) -> None:
    assert {begun for begun, _, _ in course(*numbers)} == {0}


def test_interrupted_overuse_continues_its_episode() -> None:
    reported = course(1001, 1001, *(900, 900, 1001) * 5)
    assert sum(begun for begun, _, _ in reported) == 1
    assert reported[-1][2] == 1


def test_check_with_unknown_usage_changes_nothing() -> None:
    assert course(1001, None, 1001)[-1] == (1, 0, 1)
    assert course(1001, 1001, 900, None, 900, None)[-1] == (0, 0, 1)


def looks(*found: tuple[DeviceSnapshot, ...]) -> list[int]:
    """Returns the active episodes after each check of a device of which A was promised 1000 MiB."""
    episodes = OveruseEpisodes()
    standing = []
    for second, devices in enumerate(found):
        episodes.check(memory_usages(devices, {"GPU-0": (A, B)}, PODS.get, STALE), float(second))
        standing.append(len(episodes.active))
    return standing


def later(before: DeviceSnapshot) -> DeviceSnapshot:
    """The next sample, which carries the same list of processes."""
    assert before.sample is not None
    return replace(before, sample=replace(before.sample, taken_at=before.sample.taken_at + 1))


def test_same_peak_reading_does_not_count_twice() -> None:
    peak = device((1, 1200))
    assert looks((peak,), (peak,), (later(peak),)) == [0, 0, 0]
    assert looks((peak,), (later(peak),), (device((1, 1200)),)) == [0, 0, 1]


def test_same_low_reading_does_not_count_twice_even_without_processes() -> None:
    begun = [(device((1, 1200)),), (device((1, 1200)),)]
    low = device((1, 900))
    assert looks(*begun, (low,), (low,), (low,))[-1] == 1
    none = device(used=3)
    assert looks(*begun, (none,), (later(none),), (later(none),))[-1] == 0
    assert looks(*begun, (none,), (none,), (none,))[-1] == 1


def test_the_end_of_the_holder_is_the_end_of_the_episode() -> None:
    episodes = OveruseEpisodes()
    episodes.check([use(2000)], 1.0)
    ((begun,), _) = episodes.check([use(3000)], 2.0)
    assert (begun.since, begun.used_mib) == (2.0, 3000)
    _, (ended,) = episodes.check([use(1, "b")], 3.0)
    assert ended.usage.pod_uid == "uid-a"
    assert episodes.active == ()


def watching(
    seen: list[DeviceSnapshot], pods: PodLookup = PODS.get
) -> tuple[OveruseMonitor, list[PodEvent], VersionSignal]:
    events: list[PodEvent] = []
    changes = VersionSignal()
    watch = OveruseMonitor(
        snapshot=lambda: NodeSnapshot((seen[0],)),
        holders=lambda: {"GPU-0": (A, B)},
        record=events.append,
        changes=changes,
        clock=lambda: 1_800_000_000.0,
        stale_seconds=STALE,
        pods=pods,
    )
    return watch, events, changes


async def test_one_event_for_each_episode_names_pod_device_used_and_promised() -> None:
    watch, events, changes = watching(seen := [device()])

    async def look(times: int, used: int) -> None:
        for _ in range(times):
            seen[0] = device((1, used), (2, 100))
            await watch.check()

    await look(5, 1200)
    (event,) = events
    assert (event.namespace, event.pod, event.pod_uid, event.reason) == ("ml", "a", "uid-a", "MemoryOveruse")
    assert event.message == "Container main uses 1200 MiB of GPU 0 (GPU-0), but was promised 1000 MiB"
    assert (changes.version, watch.begun, len(watch.active)) == (1, 1, 1)
    await look(END_CHECKS, 900)
    assert (changes.version, watch.begun, len(watch.active)) == (2, 1, 0)
    await look(BEGIN_CHECKS, 1200)
    assert len(events) == 2


@in_virtual_time
async def test_it_looks_again_and_again() -> None:
    watch, _, _ = watching([device(used=3)])
    beats: list[float] = []
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(12):
            await watch.run(lambda: beats.append(loop.time()))
    assert len(beats) == 3


async def test_slow_pod_lookup_does_not_block_the_loop() -> None:
    asked, answer = threading.Event(), threading.Event()

    def slow(pid: int) -> tuple[str, ...] | None:
        asked.set()
        assert answer.wait(10)
        return PODS.get(pid)

    watch, _, _ = watching([device((1, 700), (2, 300))], slow)

    async with asyncio.timeout(10):
        look = asyncio.create_task(watch.check())
        assert await asyncio.to_thread(asked.wait, 10)
        assert not look.done()
        answer.set()
        await look
    assert [use.used_mib for use in watch.usages] == [700, 300]


def test_the_kernel_is_asked_which_pod_a_process_is_in(tmp_path: Path) -> None:
    uid = "6a9d8b1c-1f2e-4a3b-9c4d-5e6f70819203"
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(f"0::/kubepods/burstable/pod{uid}/abc\n")
    assert pods_of_process(7, tmp_path) == (uid,)
    assert pods_of_process(8, tmp_path) is None
    (tmp_path / "9" / "cgroup").mkdir(parents=True)  # any other error of the system
    assert pods_of_process(9, tmp_path) is None
