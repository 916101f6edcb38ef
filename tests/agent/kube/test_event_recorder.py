"""Events are written in order, tried again, given up in the end, and never held up for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import structlog

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError, RejectedError
from gpufleet_agent.kube.event_recorder import MAX_ATTEMPTS, MAX_QUEUED, EventRecorder
from gpufleet_agent.kube.model import PodEvent
from gpufleet_testing.agent.virtual_time import in_virtual_time


def event(pod: str) -> PodEvent:
    return PodEvent(namespace="ml", pod=pod, pod_uid=f"uid-{pod}", reason="DeviceHeld", message="held by another")


class Events:
    def __init__(self) -> None:
        self.reported: list[str] = []
        self.attempts = 0
        self.failing: Callable[[str], Exception | None] = lambda pod: None

    async def create_event(self, event: PodEvent) -> None:
        self.attempts += 1
        error = self.failing(event.pod)
        if error is not None:
            raise error
        self.reported.append(event.pod)


async def reported(recorder: EventRecorder, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await recorder.run()


@in_virtual_time
async def test_in_order_and_through_an_apiserver_that_is_away_for_a_while() -> None:
    events = Events()
    events.failing = lambda pod: KubeError("away") if events.attempts < 4 else None
    recorder = EventRecorder(events)
    for pod in ("a", "b", "c"):
        recorder.record(event(pod))
    await reported(recorder, 200)
    assert events.reported == ["a", "b", "c"]


@in_virtual_time
async def test_event_that_cannot_be_written_is_dropped_after_retries() -> None:
    events = Events()
    events.failing = lambda pod: KubeError("no") if pod == "a" else None
    recorder = EventRecorder(events)
    recorder.record(event("a"))
    recorder.record(event("b"))
    with structlog.testing.capture_logs() as logs:
        await reported(recorder, MAX_ATTEMPTS * 30)
    assert events.reported == ["b"]
    assert events.attempts == MAX_ATTEMPTS + 1
    assert [(line["event"], line["pod"]) for line in logs] == [("event not written", "a")]


@pytest.mark.parametrize("error", [ObjectNotFoundError("no such namespace"), RejectedError("403: being terminated")])
@in_virtual_time
async def test_rejected_event_is_not_retried_and_delays_no_other(error: KubeError) -> None:
    events = Events()
    events.failing = lambda pod: error if pod == "a" else None
    recorder = EventRecorder(events)
    recorder.record(event("a"))
    recorder.record(event("b"))
    await reported(recorder, 1)
    assert (events.reported, events.attempts) == (["b"], 2)


@in_virtual_time
async def test_more_than_can_wait_is_left_out_and_logged() -> None:
    events = Events()
    recorder = EventRecorder(events)
    with structlog.testing.capture_logs() as logs:
        for number in range(MAX_QUEUED + 2):
            recorder.record(event(f"p{number}"))
    assert [line["pod"] for line in logs] == [f"p{MAX_QUEUED}", f"p{MAX_QUEUED + 1}"]
    await reported(recorder, 1)
    assert len(events.reported) == MAX_QUEUED
