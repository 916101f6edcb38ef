"""The publisher in virtual time against a fake apiserver."""

import asyncio
from itertools import pairwise

import pytest

from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.publish.rate_limit import WriteCause
from gpufleet_testing.agent.publisher_rig import PublisherRig, running
from gpufleet_testing.agent.virtual_time import in_virtual_time


@in_virtual_time
async def test_it_writes_at_once_and_then_a_heartbeat() -> None:
    async with running() as rig:
        await asyncio.sleep(95)
        times = [now for now, _ in rig.api.writes]
        assert times[0] == pytest.approx(0, abs=0.1)
        assert times[1:] == pytest.approx([30, 60, 90], abs=3)
        assert rig.publisher.published


@in_virtual_time
async def test_an_answer_that_comes_late_does_not_put_the_heartbeat_off() -> None:
    async with running() as rig:
        rig.api.takes_seconds = 28
        await asyncio.sleep(95)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 30, 60, 90], abs=3)


@in_virtual_time
async def test_a_reading_beyond_its_dead_band_is_written_at_the_next_tick() -> None:
    async with running() as rig:
        await asyncio.sleep(10.5)
        rig.utilization = 9
        await asyncio.sleep(5)
        assert len(rig.api.writes) == 1
        rig.utilization = 90
        await asyncio.sleep(1.1)
        ((written_at, utilization),) = rig.api.writes[1:]
        assert written_at == pytest.approx(16, abs=0.6)
        assert utilization == 90


@in_virtual_time
async def test_an_urgent_change_does_not_wait_for_the_tick() -> None:
    async with running() as rig:
        await asyncio.sleep(10.5)
        rig.healthy = False
        rig.changes.notify()
        await asyncio.sleep(0.01)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 10.5], abs=0.01)


@in_virtual_time
async def test_urgent_change_right_after_write_waits_for_min_interval() -> None:
    async with running() as rig:
        await asyncio.sleep(0.2)
        rig.healthy = False
        rig.changes.notify()
        await asyncio.sleep(0.9)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 1], abs=0.01)


@in_virtual_time
async def test_new_reservations_are_acknowledged_at_the_tick_after_two_seconds() -> None:
    async with running() as rig:
        await asyncio.sleep(10.2)
        rig.reserve()
        await asyncio.sleep(1.7)
        assert len(rig.api.writes) == 1
        await asyncio.sleep(1.2)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 13], abs=0.2)


@in_virtual_time
async def test_reservations_during_a_write_wait_as_long_as_others() -> None:
    async with running() as rig:
        await asyncio.sleep(10.2)
        rig.api.reserved_meanwhile = True
        rig.reserve()
        await asyncio.sleep(9)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 13, 15], abs=0.2)


@in_virtual_time
async def test_new_reservations_and_their_containers_are_one_write() -> None:
    async with running() as rig:
        await asyncio.sleep(10.2)
        rig.reserve()
        await asyncio.sleep(1.0)
        rig.healthy = False
        rig.changes.notify()
        await asyncio.sleep(15)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 11.2], abs=0.01)


@in_virtual_time
async def test_apiserver_outage_backs_off_then_newest_state_is_written() -> None:
    async with running() as rig:
        await asyncio.sleep(5)
        rig.api.away = True
        rig.healthy = False
        rig.changes.notify()
        for rig.utilization in range(100):
            rig.changes.notify()
            await asyncio.sleep(3)
        failed = rig.api.attempts[1:]
        assert 10 < len(failed) < 25
        gaps = [later - earlier for earlier, later in pairwise(failed)]
        assert max(gaps) <= 31
        assert min(gaps[6:]) >= 15
        rig.api.away = False
        await asyncio.sleep(31)
        written_at, utilization = rig.api.writes[1]
        assert written_at == pytest.approx(320, abs=17)
        assert utilization == 99
        failures = rig.registry.get_sample_value(
            "gpufleet_agent_status_writes_total", {"cause": "Urgent", "outcome": "Failed"}
        )
        assert failures == len(failed)
        written = [
            rig.registry.get_sample_value(
                "gpufleet_agent_status_writes_total", {"cause": cause.value, "outcome": "Written"}
            )
            for cause in WriteCause
        ]
        assert sum(filter(None, written)) == len(rig.api.writes)


@in_virtual_time
async def test_an_object_that_is_missing_is_created_and_written_to() -> None:
    async with running() as rig:
        await asyncio.sleep(5)
        rig.api.object = None
        rig.healthy = False
        rig.changes.notify()
        await asyncio.sleep(3)
        assert (await rig.api.get()).uid == "uid-b"
        assert len(rig.api.writes) == 2


@in_virtual_time
async def test_another_object_of_the_same_name_gets_its_status_at_once() -> None:
    async with running() as rig:
        await asyncio.sleep(5)
        rig.api.object = TelemetryObject("uid-c", 1, 50)
        rig.own.update(rig.api.object)
        await asyncio.sleep(1.1)
        assert len(rig.api.writes) == 2
        await asyncio.sleep(20)
        assert len(rig.api.writes) == 2


@in_virtual_time
async def test_nothing_is_written_before_the_object_is_known() -> None:
    rig = PublisherRig()
    await rig.publisher.step()
    assert rig.api.attempts == []
    assert not rig.publisher.published
