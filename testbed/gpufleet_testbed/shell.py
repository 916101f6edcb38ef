"""What a reader types so that a kubectl of a shell finds the cluster."""

import shutil
from collections.abc import Callable

from gpufleet_testbed.handles import Cluster

Which = Callable[[str], str | None]


def exports(cluster: Cluster, which: Which = shutil.which) -> tuple[str, ...]:
    """Lines for a shell. Where the machine has no kubectl, the cluster's own is put on its path.

    Args:
        cluster: The one to talk to.
        which: Finds a program on the path.
    """
    lines = (f"export KUBECONFIG={cluster.kubeconfig}",)
    return lines if which("kubectl") else (*lines, f'export PATH="$PATH:{cluster.program("kubectl").parent}"')
