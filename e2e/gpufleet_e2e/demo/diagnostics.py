"""Shows pods that are not ready, with their logs, after a failure."""

from gpufleet_e2e.demo.context import SYSTEM_NAMESPACE
from gpufleet_e2e.demo.terminal import Terminal
from gpufleet_testbed import Cluster, ClusterError

LOG_LINES = 12
READINESS = '{range .items[*]}{.metadata.name} {.status.containerStatuses[0].ready}{"\\n"}{end}'


def show_unready_pods(cluster: Cluster, terminal: Terminal) -> None:
    """Prints gpufleet's pods, and the last log lines of those that are not ready."""
    here = f"--namespace={SYSTEM_NAMESPACE}"
    try:
        terminal.command(f"kubectl get pods {here} -o wide")
        terminal.quote(cluster.kubectl("get", "pods", here, "-o", "wide").stdout)
        listed = cluster.kubectl("get", "pods", here, "-o", f"jsonpath={READINESS}").stdout
        for line in listed.splitlines():
            name, _, ready = line.partition(" ")
            if ready != "true":
                terminal.command(f"kubectl logs {here} {name}")
                terminal.quote(cluster.kubectl("logs", here, name, f"--tail={LOG_LINES}", check=False).stdout)
        terminal.say(f"The logs of the cluster's components are in {cluster.log_dir}.")
    except (ClusterError, TimeoutError) as error:  # the cluster itself fails: the first error matters
        terminal.quote(str(error))
