"""An agent in a pod confirms its report by a Lease."""

from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_testing.agent.agents import IdleGpus, make_agent, running_agent
from gpufleet_testing.agent.kube_apis import JsonObjectApi
from gpufleet_testing.agent.kubelet import FakeKubelet


async def test_agent_in_a_pod_renews_its_lease(kubelet: FakeKubelet) -> None:
    cluster = JsonObjectApi()
    kubelet.pods[ContainerKey("gpufleet-system", "agent-x", "agent")] = frozenset()
    agent = make_agent(kubelet, cluster, IdleGpus(), own_pod=("gpufleet-system", "agent-x"))
    async with kubelet, running_agent(agent):
        await cluster.until_renewed(3)
        renewal = cluster.renewals[-1]
        assert renewal.observed_at == cluster.status["observedAt"]
        assert (renewal.namespace, renewal.holder) == ("gpufleet-system", "agent-x")
        assert (renewal.duration_seconds, renewal.telemetry_uid) == (1, "u")


async def test_agent_outside_of_a_pod_has_no_lease(kubelet: FakeKubelet) -> None:
    cluster = JsonObjectApi()
    async with kubelet, running_agent(make_agent(kubelet, cluster, IdleGpus())):
        for _ in range(3):
            before = cluster.status.get("observedAt")
            await cluster.until(lambda _: cluster.status["observedAt"] != before)  # noqa: B023 - read at once
    assert cluster.renewals == []
