"""Names of objects as users write them."""

import pytest

from gpufleet_cli.errors import InputError
from gpufleet_cli.view.lookup import split_name
from gpufleet_testing.cli.clusters import RecordedCluster
from gpufleet_testing.cli.runner import run_cli


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", ("ml", "train")),
        ("team/train", ("team", "train")),
        ("gpuworkload.gpufleet.dev/train", ("ml", "train")),
    ],
)
def test_name_is_split_at_its_namespace(name: str, expected: tuple[str, str]) -> None:
    assert split_name(name, "ml") == expected


@pytest.mark.parametrize("name", ["", "team/", "/train", "a/b/c"])
def test_malformed_name_is_rejected(name: str) -> None:
    with pytest.raises(InputError, match="must be NAME or NAMESPACE/NAME"):
        split_name(name, "ml")


@pytest.mark.parametrize("command", ["status", "explain", "suspend", "logs"])
def test_namespace_without_workloads_points_to_the_others(cluster: RecordedCluster, command: str) -> None:
    cluster.fleet()
    done = run_cli(command, "train")
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith(" namespace team, which has no GPUWorkload: see gpufleet status -A\n")
