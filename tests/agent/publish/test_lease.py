"""Heartbeats by Lease, in virtual time against a fake apiserver."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from gpufleet_agent.kube.model import LeaseRenewal
from gpufleet_agent.publish.payload import timestamp
from gpufleet_agent.publish.rate_limit import WritePolicy
from gpufleet_testing.agent.objects import assignment
from gpufleet_testing.agent.publisher_rig import EPOCH, PublisherRig, running
from gpufleet_testing.agent.virtual_time import in_virtual_time

POD = ("gpufleet-system", "gpufleet-agent-x7k2p")
RENEWALS = "gpufleet_agent_lease_renewals_total"


def written_at(rig: PublisherRig) -> list[float]:
    return [now for now, _ in rig.api.writes]


def renewed_at(rig: PublisherRig) -> list[float]:
    return [now for now, _ in rig.api.renewals]


@in_virtual_time
async def test_at_rest_there_is_one_report_in_five_minutes() -> None:
    async with running(PublisherRig(pod=POD)) as rig:
        await asyncio.sleep(1000)
        assert written_at(rig) == pytest.approx([0, 300, 600, 900], abs=1)
        beats = sorted(written_at(rig) + renewed_at(rig))
        assert all(30 <= later - earlier <= 31 for earlier, later in pairwise(beats))
        assert rig.counted(RENEWALS, outcome="Renewed") == len(rig.api.renewals) == 30
        assert rig.counted(RENEWALS, outcome="Failed") == 0


@in_virtual_time
async def test_renewal_names_report_owner_and_pod() -> None:
    async with running(PublisherRig(WritePolicy(heartbeat=12.5), POD)) as rig:
        await asyncio.sleep(30)
        assert {renewal for _, renewal in rig.api.renewals} == {
            LeaseRenewal(
                namespace="gpufleet-system",
                holder="gpufleet-agent-x7k2p",
                duration_seconds=38,
                observed_at=timestamp(EPOCH + written_at(rig)[0]),
                telemetry_uid="uid-a",
            )
        }


@in_virtual_time
async def test_without_own_pod_every_heartbeat_is_a_report() -> None:
    async with running(PublisherRig()) as rig:
        await asyncio.sleep(95)
        assert written_at(rig) == pytest.approx([0, 30, 60, 90], abs=3)


@pytest.mark.parametrize("forbidden", [True, False])
def test_object_that_cannot_be_read_is_reported_at_each_heartbeat(forbidden: bool) -> None:
    """The response to a report has the object, so reservations are not missed."""

    @in_virtual_time
    async def scenario() -> None:
        async with running(PublisherRig(pod=POD)) as rig:
            await asyncio.sleep(35)
            rig.api.reads_forbidden = forbidden
            rig.api.watch_ended.set()
            assert rig.api.object is not None
            await asyncio.sleep(1)
            rig.api.object = replace(rig.api.object, generation=2, resource_version=40)
            await asyncio.sleep(60)
            assert len(renewed_at(rig)) == (1 if forbidden else 3)
            if forbidden:
                assert written_at(rig)[:2] == pytest.approx([0, 61], abs=1)
                assert rig.own.generation == 2

    scenario()


@in_virtual_time
async def test_fault_that_recurs_is_reported_at_the_next_heartbeat() -> None:
    async with running(PublisherRig(pod=POD)) as rig:
        rig.healthy = False
        await asyncio.sleep(35)
        rig.events = 1
        await asyncio.sleep(60)
        assert written_at(rig) == pytest.approx([0, 60], abs=1)
        assert renewed_at(rig) == pytest.approx([30, 90], abs=1)


@pytest.mark.parametrize("report", [5.0, 30.0])
def test_reports_as_frequent_as_heartbeats_need_no_lease(report: float) -> None:
    @in_virtual_time
    async def scenario() -> None:
        async with running(PublisherRig(WritePolicy(report=report), POD)) as rig:
            await asyncio.sleep(95)
            assert written_at(rig) == pytest.approx([0, 30, 60, 90], abs=3)
            assert rig.api.renewals == []

    scenario()


@in_virtual_time
async def test_device_in_shared_use_is_reported_at_each_heartbeat() -> None:
    rig = PublisherRig(pod=POD)
    rig.device = {"allocatedTo": [{"namespace": "ml", "pod": "p", "container": "main", "shared": True}]}
    async with running(rig):
        await asyncio.sleep(95)
        assert written_at(rig) == pytest.approx([0, 30, 60, 90], abs=3)
        assert rig.api.renewals == []


@in_virtual_time
async def test_missing_container_is_reported_at_each_heartbeat() -> None:
    async with running(PublisherRig(pod=POD)) as rig:
        await asyncio.sleep(35)
        rig.reserve(assignment("train-0", "GPU-0"))
        await asyncio.sleep(95)
        assert written_at(rig) == pytest.approx([0, 38, 68, 98, 128], abs=3)
        assert renewed_at(rig) == pytest.approx([30], abs=1)


@in_virtual_time
async def test_change_is_reported_between_renewals_and_then_confirmed() -> None:
    async with running(PublisherRig(pod=POD)) as rig:
        await asyncio.sleep(70.5)
        rig.utilization = 90
        await asyncio.sleep(59)
        assert written_at(rig) == pytest.approx([0, 71], abs=1)
        assert renewed_at(rig) == pytest.approx([30, 61, 101], abs=2)
        confirmed = [renewal.observed_at for _, renewal in rig.api.renewals]
        reports = [timestamp(EPOCH + now) for now in written_at(rig)]
        assert confirmed == [reports[0], reports[0], reports[1]]


@in_virtual_time
async def test_status_that_another_process_wrote_is_replaced() -> None:
    async with running(PublisherRig(pod=POD)) as rig:
        await asyncio.sleep(10)
        assert rig.api.object is not None
        other = {**rig.status(), "observedAt": timestamp(EPOCH + 5)}
        rig.own.update(replace(rig.api.object, resource_version=50, status=other))
        rig.api.object = rig.own.current
        await asyncio.sleep(55)
        assert written_at(rig) == pytest.approx([0, 30], abs=1)
        assert renewed_at(rig) == pytest.approx([61], abs=1)


@in_virtual_time
async def test_failed_renewal_is_followed_by_a_report_at_once() -> None:
    async with running(PublisherRig(pod=POD)) as rig:
        rig.api.leases_forbidden = True
        await asyncio.sleep(95)
        assert written_at(rig) == pytest.approx([0, 30, 60, 90], abs=1)
        assert renewed_at(rig) == written_at(rig)[1:]
        assert rig.counted(RENEWALS, outcome="Failed") == 3
        rig.api.leases_forbidden = False
        await asyncio.sleep(60)
        assert len(rig.api.writes) == 4
        assert rig.counted(RENEWALS, outcome="Renewed") == 2


@in_virtual_time
async def test_report_after_a_slow_failed_renewal_is_observed_after_it() -> None:
    async with running(PublisherRig(pod=POD)) as rig:
        await asyncio.sleep(20)
        rig.api.leases_forbidden, rig.api.takes_seconds = True, 10.0
        await asyncio.sleep(12)
        rig.utilization = 90
        await asyncio.sleep(10)
        assert written_at(rig) == pytest.approx([0, 40], abs=1)
        assert [utilization for _, utilization in rig.api.writes] == [0, 90]


@in_virtual_time
async def test_during_an_outage_one_renewal_is_tried_and_then_only_reports() -> None:
    async with running(PublisherRig(pod=POD)) as rig:
        await asyncio.sleep(10)
        rig.api.away = True
        await asyncio.sleep(200)
        assert len(rig.api.renewals) == 1
        assert len(rig.api.attempts) > 5
        rig.api.away = False
        await asyncio.sleep(31)
        assert len(rig.api.writes) == 2
        await asyncio.sleep(35)
        assert len(rig.api.renewals) >= 2
