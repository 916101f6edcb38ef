"""The recorder keeps one object for each template, writes little, and forgets nothing when it starts again."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.demand.observe import ObservedRun, RunKey, observe_runs
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import InvalidWriteError, UnavailableError
from gpufleet_operator.model.objects import Pod, PodPhase, Telemetry
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.demands.demand_recorder import DemandRecorder
from gpufleet_testing.operator import make
from gpufleet_testing.operator.demands.fake_demand_writer import FakeDemandWriter
from gpufleet_testing.operator.make import HolderMemory, using

SHARED = {"mode": "Shared", "memoryMiB": 4000}
ENDS = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1"}]}}
LIMITS = Limits(reclaim_after=timedelta(seconds=600))


class Rig:
    """A recorder, and one pod after another of a workload that ends."""

    def __init__(self) -> None:
        self.api = FakeDemandWriter()
        self.leads = True
        self.pod_version = 20
        self.at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.restart()

    def restart(self) -> None:
        """Starts the process again: what is stored remains."""
        self.cache = Cache()
        for body in self.api.objects.values():
            self.cache.demands.apply(body)
        clock = ServerClock()
        clock.now = lambda: self.at  # type: ignore[method-assign] # the time of the test
        self.recorder = DemandRecorder(self.cache, self.api, LIMITS, clock, may_write=lambda: self.leads)

    async def uses(self, name: str, most: int, seconds: float = 700) -> None:
        """The pod uses so much; the recorder compares once, some time later."""
        workload = make.workload(name, devices=SHARED, template=ENDS)
        pod = make.running_pod(name, images=(("main", "busybox:1"),), workload_label=name)
        self.cache.workloads.put(workload)
        self._put_pod(pod)
        reserved = make.assignment(pod, "GPU-1-0", memory_mib=4000)
        self._version()
        telemetry = using(make.telemetry(held={"GPU-1-0": reserved}), {pod.name: HolderMemory(most, None, seconds)})
        self.cache.telemetry.put(replace(telemetry, resource_version=str(self.pod_version)))
        await self.compare()

    async def ends(self, name: str, phase: PodPhase = PodPhase.SUCCEEDED) -> None:
        self._put_pod(replace(make.running_pod(name, workload_label=name), phase=phase))
        self.cache.telemetry.put(replace(make.telemetry(), resource_version=str(self._version())))
        await self.compare()

    async def compare(self) -> None:
        self.at += timedelta(minutes=1)
        await self.recorder.record()

    def status(self, name: str = "train") -> Any:
        ((_, body),) = [item for item in self.api.objects.items() if item[1]["spec"]["owner"]["name"] == name]
        return body["status"]

    def _put_pod(self, pod: Pod) -> None:
        self.cache.pods.put(replace(pod, resource_version=str(self._version())))

    def _version(self) -> int:
        self.pod_version += 1
        return self.pod_version


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_runs_of_one_template_are_kept_in_one_object(rig: Rig) -> None:
    await rig.uses("train-x7k2p", 900)
    await rig.ends("train-x7k2p")
    await rig.uses("train-bcdfg", 1200)
    status = rig.status()
    assert (status["countedRuns"], status["promisedMiB"], status["medianMiB"], status["maxMiB"]) == (2, 4000, 900, 1200)
    assert sorted(run["state"] for run in status["runs"]) == ["Ended", "Running"]
    (body,) = rig.api.objects.values()
    assert (body["spec"]["container"], body["spec"]["image"]) == ("main", "busybox")


async def test_nothing_is_written_at_rest(rig: Rig) -> None:
    await rig.uses("train", 900)
    before = rig.api.writes
    for _ in range(20):
        await rig.uses("train", 900)
    assert rig.api.writes == before == 2, "the object and its status"


async def test_report_that_did_not_change_is_read_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def observe(telemetry: Iterable[Telemetry], *rest: Any) -> dict[RunKey, ObservedRun]:
        found = list(telemetry)
        read.extend(one.resource_version for one in found)
        return observe_runs(found, *rest)

    monkeypatch.setattr("gpufleet_operator.runtime.demands.demand_recorder.observe_runs", observe)
    await rig.uses("train", 900)
    await rig.compare()
    assert len(read) == 1
    await rig.uses("train", 900)
    assert len(read) == len(set(read)) == 2


async def test_restart_loses_nothing_and_counts_no_run_twice(rig: Rig) -> None:
    await rig.uses("train", 900)
    stored = rig.status()
    rig.restart()
    await rig.uses("train", 900)
    assert rig.status() == stored
    rig.restart()
    await rig.ends("train")
    assert (rig.status()["totalRuns"], rig.status()["maxMiB"]) == (1, 900)


async def test_maximum_within_the_dead_band_is_kept_until_the_end(rig: Rig) -> None:
    await rig.uses("train", 900)
    await rig.uses("train", 950)
    assert rig.status()["maxMiB"] == 900
    await rig.uses("train", 100)
    await rig.ends("train")
    assert rig.status()["maxMiB"] == 950


async def test_standby_writes_nothing(rig: Rig) -> None:
    rig.leads = False
    await rig.uses("train", 900)
    assert rig.api.writes == 0


async def test_failed_write_is_tried_again_after_a_pause(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, elapsed = asyncio.get_running_loop(), [0.0]
    monkeypatch.setattr(loop, "time", lambda real=loop.time: real() + elapsed[0])
    rig.api.error = UnavailableError("no response")
    await rig.uses("train", 900)
    assert rig.api.writes == 1
    rig.api.error = None
    await rig.ends("train")
    assert rig.api.writes == 1, "the pause"
    elapsed[0] = 61
    await rig.compare()
    assert rig.api.objects == {}, "a run that was never stored and has ended is not known"


async def test_maximum_is_kept_while_writes_fail(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, elapsed = asyncio.get_running_loop(), [0.0]
    monkeypatch.setattr(loop, "time", lambda real=loop.time: real() + elapsed[0])
    await rig.uses("train", 900)
    rig.api.error = UnavailableError("no response")
    await rig.uses("train", 1500)
    await rig.ends("train")
    rig.api.error, elapsed[0] = None, 61
    await rig.compare()
    assert (rig.status()["maxMiB"], rig.status()["runs"][0]["state"]) == (1500, "Ended")


async def test_ended_runs_that_are_not_stored_are_not_kept(rig: Rig) -> None:
    """A quota of objects may forbid the GPUDemand for as long as the template has runs."""
    rig.api.error = InvalidWriteError("exceeded quota", 403)
    await rig.uses("train-zzzzz", 900)
    for letter in "bcdfg":
        name = f"train-{letter * 5}"
        await rig.uses(name, 900)
        await rig.ends(name)
    assert [uid for _, uid in rig.recorder._observed] == [make.running_pod("train-zzzzz").uid]


async def test_version_of_another_client_is_a_conflict_and_not_overwritten(rig: Rig) -> None:
    await rig.uses("train", 900)
    ((key, body),) = rig.api.objects.items()
    other = {**body, "metadata": {**body["metadata"], "resourceVersion": "999"}}
    rig.api.objects[key] = other
    await rig.ends("train")
    assert rig.api.objects[key] == other
    rig.cache.demands.apply(other)
    await rig.compare()
    assert [run["state"] for run in rig.status()["runs"]] == ["Ended"]


async def test_expired_object_is_deleted(rig: Rig) -> None:
    await rig.uses("train", 900)
    await rig.ends("train")
    rig.at += timedelta(days=29)
    await rig.compare()
    assert rig.api.objects
    rig.at += timedelta(days=1)
    await rig.compare()
    assert (rig.api.objects, rig.cache.demands.items) == ({}, {})
