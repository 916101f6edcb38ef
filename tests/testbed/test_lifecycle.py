import pytest

from gpufleet_testbed.config import ClusterConfig, Provider
from gpufleet_testbed.kind.lifecycle import KindLifecycle
from gpufleet_testbed.lifecycle import lifecycle
from gpufleet_testbed.local.lifecycle import LocalLifecycle


def test_local_is_the_provider_wherever_docker_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUFLEET_CLUSTER_PROVIDER", raising=False)
    assert ClusterConfig.from_environment().provider is Provider.LOCAL
    assert isinstance(lifecycle(), LocalLifecycle)


def test_kind_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUFLEET_CLUSTER_PROVIDER", "kind")
    assert isinstance(lifecycle(), KindLifecycle)
    assert isinstance(lifecycle(Provider.LOCAL), LocalLifecycle)
