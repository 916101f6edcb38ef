"""What happens before the first act and after the last: simulated GPUs onto the nodes, an old demo off the context."""

from gpufleet_e2e.demo.context import SYSTEM_NAMESPACE, WORKLOAD_NAMESPACE, DemoContext
from gpufleet_e2e.demo.driver import SimulatedDriver
from gpufleet_e2e.demo.install import RELEASE
from gpufleet_e2e.demo.nodes import NODE_PROFILES
from gpufleet_e2e.demo.terminal import Terminal
from gpufleet_e2e.proof.contract import GROUP, WORKLOADS
from gpufleet_testbed import Cluster, ConflictError

CRD = f"{WORKLOADS}.{GROUP}"
_NAMES = '{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\\n"}{end}'


def install_driver(cluster: Cluster) -> SimulatedDriver:
    """Build the simulated driver and put it, with a machine's GPUs, into each node's driver folder."""
    machines = dict(zip((node.name for node in cluster.nodes), NODE_PROFILES, strict=True))
    return SimulatedDriver.install({node.name: node.driver_dir for node in cluster.nodes}, machines)


def describe_nodes(cluster: Cluster) -> str:
    """`node-1 has 8 x H100, node-2 has 8 x A100`."""
    pairs = zip(cluster.nodes, NODE_PROFILES, strict=True)
    return ", ".join(f"{node.name} has {len(machine.loads)} x {machine.preset.upper()}" for node, machine in pairs)


def remove_earlier_demo(context: DemoContext) -> None:
    """Take over a living demo: delete the workloads that an earlier run left, and wait until they are gone.

    Raises:
        ConflictError: GPUWorkloads of other namespaces may hold what the story needs; they aren't ours to delete.
    """
    kubectl = context.cluster.kubectl
    if not kubectl("get", "crd", CRD, "--ignore-not-found", "-o", "name").stdout.strip():
        return
    elsewhere = (
        "--all-namespaces",
        f"--field-selector=metadata.namespace!={WORKLOAD_NAMESPACE}",
        "-o",
        f"jsonpath={_NAMES}",
    )
    if others := kubectl("get", WORKLOADS, *elsewhere).stdout.split():
        deletions = "\n".join(
            "  kubectl delete gpuworkload --namespace={} {}".format(*one.split("/")) for one in others
        )
        raise ConflictError(f"workloads of yours may hold GPUs that the story needs; delete them first:\n{deletions}")
    here = f"--namespace={WORKLOAD_NAMESPACE}"
    left = kubectl("get", WORKLOADS, here, "-o", "jsonpath={.items[*].metadata.name}").stdout.split()
    if left:
        context.terminal.progress(f"an earlier demo was here: its workloads {', '.join(left)} are deleted first")
        context.delete_pods(*left)


def remove(cluster: Cluster, terminal: Terminal) -> None:
    """Workloads first, then the chart, then the cluster: in the order in which a user would.

    A broken cluster must go too, so a step that fails is told and the next one follows.
    """
    terminal.step("Remove everything", "Workloads first, then the chart, then the cluster with all that it made.")
    steps = (
        ("workloads", cluster.kubectl, ("delete", "namespace", WORKLOAD_NAMESPACE, "--ignore-not-found")),
        ("chart", cluster.helm, ("uninstall", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found")),
    )
    for title, command, words in steps:
        done = command(*words, check=False)
        if done.returncode:
            terminal.bad(f"{title}: {done.stderr.strip()}")
        else:
            terminal.progress(f"{title} removed")
    cluster.down()
    terminal.good("the cluster is gone")
