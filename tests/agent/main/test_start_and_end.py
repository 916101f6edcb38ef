"""How the whole agent starts and ends: by itself, by a signal, by an error, or in the middle of its start."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest
import structlog

from gpufleet_agent.devices.base import LibraryMismatchError, Reading
from gpufleet_agent.main import serve
from gpufleet_agent.runtime.lifecycle import ComponentError
from gpufleet_testing.agent.agents import AgentRig
from gpufleet_testing.agent.kubelet import FakeKubelet


async def test_what_was_started_is_released_at_the_end(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet:
        async with rig.running():
            await kubelet.until(kubelet.serving)
        assert rig.sockets() == ["kubelet.sock"]
        assert rig.api.closed
        assert rig.hardware.open_count == 0
        assert asyncio.all_tasks() - kubelet.tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        pytest.param(
            lambda rig, _: setattr(rig.hardware, "opening", LibraryMismatchError("restart me")),
            "sampler: LibraryMismatchError: restart me",
            id="a library that a new process must load",
        ),
        pytest.param(
            lambda rig, _: rig.kubelet.device_plugins.rmdir(), "device plugin: NotADirectoryError", id="no kubelet here"
        ),
        pytest.param(lambda rig, port: rig.occupy(port), "HTTP server: OSError", id="a port that is taken"),
    ],
)
async def test_a_part_that_cannot_start_is_named_and_everything_before_it_undone(
    sabotage: Callable[[AgentRig, int], object], message: str, kubelet: FakeKubelet
) -> None:
    rig = AgentRig(kubelet)
    before = asyncio.all_tasks()
    other = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    sabotage(rig, port)
    with pytest.raises(ComponentError, match=message):
        await rig.make().run()
    other.close()
    await other.wait_closed()
    assert rig.hardware.open_count == 0
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_agent_with_status_0(number: signal.Signals, kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet:
        served = asyncio.create_task(serve(rig.make))
        await kubelet.until(kubelet.serving)
        os.kill(os.getpid(), number)
        async with asyncio.timeout(30):  # as long as the kubelet waits
            assert await served == 0
        assert rig.sockets() == ["kubelet.sock"]


async def test_runtime_error_exits_1_and_names_the_part(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    read = rig.hardware.on_read

    def mismatch(uuid: str) -> Reading:
        if rig.api.statuses:
            raise LibraryMismatchError("the driver was upgraded")
        return read(uuid)

    rig.hardware.on_read = mismatch  # the driver is upgraded while the agent runs
    async with kubelet:
        with structlog.testing.capture_logs() as events:
            assert await serve(rig.make) == 1
        (failed,) = [event for event in events if event["event"] == "agent failed"]
        assert failed["error"] == "sampler: LibraryMismatchError: the driver was upgraded"
        assert rig.sockets() == ["kubelet.sock"]


@pytest.mark.parametrize("awaits", range(0, 60, 3))
async def test_start_that_is_cancelled_at_any_point_leaves_nothing(awaits: int, kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet:
        task = asyncio.create_task(rig.make().run())
        for _ in range(awaits):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.hardware.open_count == 0
        assert rig.sockets() == ["kubelet.sock"]
        assert asyncio.all_tasks() - kubelet.tasks() == {asyncio.current_task()}
