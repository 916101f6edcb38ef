from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gpufleet_testbed import Cluster
from gpufleet_testbed.shell import exports

CLUSTER = cast(
    "Cluster",
    SimpleNamespace(kubeconfig=Path("/cache/admin"), environment={}, program=lambda name: Path(f"/cache/tools/{name}")),
)


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        pytest.param("/usr/bin/kubectl", ("export KUBECONFIG=/cache/admin",), id="the machine's own kubectl will do"),
        pytest.param(
            None, ("export KUBECONFIG=/cache/admin", 'export PATH="$PATH:/cache/tools"'), id="else the cluster's"
        ),
    ],
)
def test_what_a_shell_needs(found: str | None, lines: tuple[str, ...]) -> None:
    assert exports(CLUSTER, which=lambda name: found if name == "kubectl" else None) == lines


def test_variables_that_choose_the_cluster_are_exported() -> None:
    chosen = cast("Cluster", SimpleNamespace(kubeconfig=Path("/admin"), environment={"PROVIDER": "a b"}))
    lines = exports(chosen, which=lambda name: f"/usr/bin/{name}")
    assert lines == ("export KUBECONFIG=/admin", "export PROVIDER='a b'")
