from pathlib import Path

import pytest

from gpufleet_testbed.config import ClusterConfig, Provider, cache_dir


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "must be from 1 to 20"),
        ({"nodes": 21}, "must be from 1 to 20"),
        ({"node_status_seconds": 0}, "node_status_seconds"),
        ({"network": "10.0.0.0/8"}, "must be an IPv4 /16"),
        ({"network": "nonsense"}, "nonsense"),
        ({"name": "UPPER"}, "must match"),
        ({"name": "thirteen-char"}, "must match"),
    ],
)
def test_invalid_values_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterConfig(**changes)  # type: ignore[arg-type] # the table has values of several types


def test_environment_fills_what_the_caller_leaves_open() -> None:
    environ = {"GPUFLEET_CLUSTER_PROVIDER": "local", "GPUFLEET_CLUSTER_NETWORK": "10.99.0.0/16"}
    found = ClusterConfig.from_environment(environ, nodes=3)
    assert found == ClusterConfig(nodes=3, provider=Provider.LOCAL, network="10.99.0.0/16")
    assert ClusterConfig.from_environment(environ, network="10.98.0.0/16").network == "10.98.0.0/16"
    assert ClusterConfig.from_environment({}) == ClusterConfig()


def test_unknown_provider_in_the_environment_is_an_error() -> None:
    with pytest.raises(ValueError, match="vagrant"):
        ClusterConfig.from_environment({"GPUFLEET_CLUSTER_PROVIDER": "vagrant"})


def test_cache_dir_is_the_users_unless_set(tmp_path: Path) -> None:
    assert cache_dir({"GPUFLEET_CACHE": str(tmp_path)}) == tmp_path
    assert cache_dir({}) == Path.home() / ".cache" / "gpufleet"
