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
    """Installs the simulated driver with the GPUs of a profile in each node's driver folder."""
    profiles = dict(zip((node.name for node in cluster.nodes), NODE_PROFILES, strict=True))
    return SimulatedDriver.install({node.name: node.driver_dir for node in cluster.nodes}, profiles)


def describe_nodes(cluster: Cluster) -> str:
    """Describes the nodes like `node-1 has 8 x H100, node-2 has 8 x A100`."""
    pairs = zip(cluster.nodes, NODE_PROFILES, strict=True)
    return ", ".join(f"{node.name} has {len(profile.loads)} x {profile.preset.upper()}" for node, profile in pairs)


def remove_earlier_demo(context: DemoContext) -> None:
    """Deletes the workloads of an earlier demo on this cluster, and waits until they are gone.

    Raises:
        ConflictError: GPUWorkloads of other namespaces, which the demo does not delete, may hold GPUs that it needs.
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
        raise ConflictError(f"other workloads may hold GPUs that the demo needs; delete them first:\n{deletions}")
    here = f"--namespace={WORKLOAD_NAMESPACE}"
    left = kubectl("get", WORKLOADS, here, "-o", "jsonpath={.items[*].metadata.name}").stdout.split()
    if left:
        context.terminal.progress(f"deleting the workloads of an earlier demo: {', '.join(left)}")
        context.delete_pods(*left)


def remove(cluster: Cluster, terminal: Terminal) -> None:
    """Removes workloads, then the chart, then the cluster, in the order in which a user would.

    A failed step is printed and the next one follows, so that a broken cluster can be removed.
    """
    terminal.step("Remove everything", "First the workloads, then the chart, then the cluster.")
    steps = (
        ("workloads", cluster.kubectl, ("delete", "namespace", WORKLOAD_NAMESPACE, "--ignore-not-found")),
        ("chart", cluster.helm, ("uninstall", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found")),
    )
    for title, command, words in steps:
        done = command(*words, check=False)
        if done.returncode:
            terminal.fail(f"{title}: {done.stderr.strip()}")
        else:
            terminal.progress(f"{title} removed")
    cluster.down()
    terminal.ok("the cluster is removed")
