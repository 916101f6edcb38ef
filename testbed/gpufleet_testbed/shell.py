"""Shell commands with which kubectl finds the cluster."""

import shlex
import shutil
from collections.abc import Callable

from gpufleet_testbed.handles import Cluster

Which = Callable[[str], str | None]


def exports(cluster: Cluster, which: Which = shutil.which) -> tuple[str, ...]:
    """Returns shell lines; on a machine without kubectl they add the cluster's own to the path.

    Args:
        cluster: The cluster to use.
        which: Finds a program on the path.
    """
    variables = {"KUBECONFIG": str(cluster.kubeconfig), **cluster.environment}
    lines = tuple(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    return lines if which("kubectl") else (*lines, f'export PATH="$PATH:{cluster.program("kubectl").parent}"')
