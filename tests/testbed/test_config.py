import re
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
        ({"kubernetes": "1.36.3"}, 'kubernetes: Unsupported value: "1.36.3": supported values: "1.34", "1.35", '),
        ({"kubernetes": "1.34", "provider": Provider.KIND}, 'Unsupported value: "1.34": kind has 1.36 only'),
    ],
)
def test_invalid_values_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterConfig(**changes)  # type: ignore[arg-type] # the table has values of several types


def test_environment_fills_what_the_caller_leaves_open() -> None:
    environ = {
        "GPUFLEET_CLUSTER_PROVIDER": "kind",
        "GPUFLEET_CLUSTER_NETWORK": "10.99.0.0/16",
        "GPUFLEET_KIND_NODE_IMAGE": "build",
    }
    found = ClusterConfig.from_environment(environ, nodes=3)
    assert found == ClusterConfig(nodes=3, provider=Provider.KIND, network="10.99.0.0/16", kind_node_image="build")
    assert ClusterConfig.from_environment(environ, network="10.98.0.0/16").network == "10.98.0.0/16"
    assert ClusterConfig.from_environment({}) == ClusterConfig()


def test_environment_selects_the_version_of_kubernetes() -> None:
    assert ClusterConfig.from_environment({"GPUFLEET_CLUSTER_KUBERNETES": "1.34"}).kubernetes == "1.34"
    assert ClusterConfig.from_environment({"GPUFLEET_CLUSTER_KUBERNETES": ""}).kubernetes == "1.36"
    chosen = ClusterConfig.from_environment({"GPUFLEET_CLUSTER_KUBERNETES": "1.34"}, kubernetes="1.37")
    assert chosen.kubernetes == "1.37"


def test_unknown_version_in_the_environment_is_named_with_the_choices() -> None:
    message = 'GPUFLEET_CLUSTER_KUBERNETES: Unsupported value: "1.33": supported values: "1.34", "1.35", "1.36", "1.37"'
    with pytest.raises(ValueError, match=re.escape(message)):
        ClusterConfig.from_environment({"GPUFLEET_CLUSTER_KUBERNETES": "1.33"})


def test_another_version_in_the_environment_is_rejected_for_kind() -> None:
    environ = {"GPUFLEET_CLUSTER_KUBERNETES": "1.37", "GPUFLEET_CLUSTER_PROVIDER": "kind"}
    with pytest.raises(ValueError, match=re.escape('Unsupported value: "1.37": kind has 1.36 only')):
        ClusterConfig.from_environment(environ)


def test_unknown_provider_in_the_environment_is_an_error() -> None:
    with pytest.raises(ValueError, match="vagrant"):
        ClusterConfig.from_environment({"GPUFLEET_CLUSTER_PROVIDER": "vagrant"})


def test_cache_dir_is_the_users_unless_set(tmp_path: Path) -> None:
    assert cache_dir({"GPUFLEET_CACHE": str(tmp_path)}) == tmp_path
    assert cache_dir({}) == Path.home() / ".cache" / "gpufleet"
