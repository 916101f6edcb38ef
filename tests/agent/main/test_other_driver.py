"""A node whose claims another DRA driver serves."""

from pathlib import Path

from gpufleet_api.names import Transport
from gpufleet_testing.agent.agents import AgentRig
from gpufleet_testing.agent.kubelet import FakeKubelet


async def test_agent_beside_another_driver_measures_and_serves_nothing(kubelet: FakeKubelet, tmp_path: Path) -> None:
    plugins, registry = tmp_path / "plugins", tmp_path / "registry"
    rig = AgentRig(
        kubelet,
        transport=Transport.DRA,
        dra_driver="gpu.nvidia.com",
        plugins_dir=plugins,
        plugins_registry_dir=registry,
    )
    async with kubelet, rig.running() as agent:
        status = await rig.api.until(lambda status: len(status["devices"]) == 4)
        assert status["transport"] == "DRA"
        assert not any("withheld" in device for device in status["devices"])
        code, problems = await rig.fetch(agent, "/readyz")
        assert code == 200, problems
    assert not kubelet.plugins
    assert not plugins.exists()
    assert not registry.exists()
