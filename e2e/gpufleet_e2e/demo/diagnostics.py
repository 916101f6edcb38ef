"""What a reader needs to see when the installation or a step fails: pods that aren't well, and their last words."""

from gpufleet_e2e.demo.context import SYSTEM_NAMESPACE
from gpufleet_e2e.demo.terminal import Terminal
from gpufleet_testbed import Cluster, ClusterError

TAIL = 12
READINESS = '{range .items[*]}{.metadata.name} {.status.containerStatuses[0].ready}{"\\n"}{end}'


def show_unready_pods(cluster: Cluster, terminal: Terminal) -> None:
    """Quote the state of our own pods and the last lines of those that aren't ready."""
    here = f"--namespace={SYSTEM_NAMESPACE}"
    try:
        terminal.command(f"kubectl get pods {here} -o wide")
        terminal.quote(cluster.kubectl("get", "pods", here, "-o", "wide").stdout)
        listed = cluster.kubectl("get", "pods", here, "-o", f"jsonpath={READINESS}").stdout
        for line in listed.splitlines():
            name, _, ready = line.partition(" ")
            if ready != "true":
                terminal.command(f"kubectl logs {here} {name}")
                terminal.quote(cluster.kubectl("logs", here, name, f"--tail={TAIL}", check=False).stdout)
        terminal.say(f"The logs of the cluster's own parts are in {cluster.log_dir}.")
    except (ClusterError, TimeoutError) as error:  # the cluster itself is in trouble: the first error is what counts
        terminal.quote(str(error))
