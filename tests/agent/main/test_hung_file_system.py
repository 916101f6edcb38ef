"""The whole agent on a disk that hangs: what doesn't need the disk goes on."""

import asyncio
import threading
from pathlib import Path

import pytest

from gpufleet_agent.plugin.inject.cdi import CdiFile
from gpufleet_agent.plugin.inject.strategies import DeviceListStrategy, InjectorSettings
from gpufleet_testing.agent.agents import AgentRig
from gpufleet_testing.agent.kubelet import FakeKubelet


async def test_scrapes_probes_and_status_continue(
    kubelet: FakeKubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, hanging = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        hanging.set()
        assert going_on.wait(60), "the test did not resume the disk"

    injection = InjectorSettings(
        strategies=frozenset({DeviceListStrategy.CDI_CRI}), driver_root=tmp_path, cdi_root=tmp_path / "cdi"
    )
    async with kubelet:
        rig = AgentRig(kubelet, injection=injection, heartbeat_seconds=0.3)
        async with rig.running() as agent:
            await rig.api.until(lambda status: len(status["devices"]) == 4)
            monkeypatch.setattr(CdiFile, "write", hang)
            agent.devices_changed.notify()
            async with asyncio.timeout(10):
                await asyncio.to_thread(hanging.wait, 10)
            assert (await rig.fetch(agent, "/healthz"))[0] == 200
            assert "DCGM_FI_DEV_GPU_UTIL" in (await rig.fetch(agent, "/metrics"))[1]
            reported = len(rig.api.statuses)
            await rig.api.until(lambda _: len(rig.api.statuses) > reported)
            monkeypatch.undo()
            going_on.set()
