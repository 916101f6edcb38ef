"""A device that no container can be given is no choice of the operator's: the status says so, and calls it no fault."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpufleet_agent.plugin.inject.strategies import DeviceListStrategy, InjectorSettings
from gpufleet_testing.agent.agents import AgentRig
from gpufleet_testing.agent.kubelet import FakeKubelet


def withheld(status: Mapping[str, Any]) -> dict[str, str]:
    return {device["uuid"]: device["withheld"] for device in status["devices"] if "withheld" in device}


async def test_a_missing_device_node_is_in_the_status_until_it_exists(kubelet: FakeKubelet, tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    dev.mkdir()
    for index in (0, 1, 3):
        (dev / f"nvidia{index}").touch()

    injection = InjectorSettings(
        strategies=frozenset({DeviceListStrategy.CDI_CRI}), driver_root=tmp_path, cdi_root=tmp_path / "cdi"
    )
    async with kubelet:
        rig = AgentRig(kubelet, injection=injection)
        async with rig.running() as agent:
            status = await rig.api.until(lambda status: withheld(status) == {"GPU-2": "no device node"})
            assert {device["health"]["state"] for device in status["devices"]} == {"Healthy"}
            (dev / "nvidia2").touch()
            agent.devices_changed.notify()
            await rig.api.until(lambda status: len(status["devices"]) == 4 and not withheld(status))
