from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gpufleet_testbed import Cluster
from gpufleet_testbed.shell import exports

CLUSTER = cast(
    "Cluster", SimpleNamespace(kubeconfig=Path("/cache/admin"), program=lambda name: Path(f"/cache/tools/{name}"))
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
