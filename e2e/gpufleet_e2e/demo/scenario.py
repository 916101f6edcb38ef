"""The demo's steps in order, each with its title and why it matters."""

from gpufleet_e2e.demo import install, tables
from gpufleet_e2e.demo.context import WORKLOAD_NAMESPACE, DemoContext
from gpufleet_e2e.demo.driver import SimulatedDriver
from gpufleet_e2e.demo.steps import placement, recorded_node, thermal
from gpufleet_e2e.demo.steps.unplaceable import show_unplaceable
from gpufleet_e2e.demo.terminal import Terminal
from gpufleet_e2e.proof import Disagreement, EvidenceError, WorkloadEvidence, compare
from gpufleet_testbed import exports

STEPS = 13
"""Two in `cli.py`, eleven here."""


def run_steps(context: DemoContext, driver: SimulatedDriver) -> None:
    """Runs every step after the cluster has its GPUs. Disagreements are added to `context.problems`."""
    step = context.terminal.step
    step(
        "Install the chart and wait for live telemetry",
        "One agent per GPU node reads NVML and publishes a GPUTelemetry object; one operator decides from them.",
    )
    install.install(context)
    placement.show_fleet(context)
    _place_examples(context)

    step(
        "The best GPU becomes hot",
        "Decisions follow live telemetry: the device that was best before is avoided, with a reason.",
    )
    thermal.avoid_hot_gpu(context, driver)

    step(
        "A request that cannot be met (examples/impossible.yaml)",
        "The workload waits without holding anything, and explains why in numbers.",
    )
    show_unplaceable(context, "impossible")

    step(
        "The agent on a recorded node (examples/recordings/hot.jsonl)",
        "Hardware is one small interface: a recording replaces the driver, as another vendor's driver could.",
    )
    recorded_node.show_recorded_node(context)


def _place_examples(context: DemoContext) -> None:
    step, sources = context.terminal.step, context.shown_sources
    step(
        "One GPU for one container (examples/single.yaml)",
        "The operator picks the exact device. "
        f"{tables.number_of(sources).capitalize()} sources must name the same UUID:",
    )
    context.terminal.show(tables.legend_table(sources))
    placement.place(context, "single")

    step(
        "A gang of four GPUs (examples/gang.yaml)",
        "All of them or none: training that gets three of four GPUs would hold them idle.",
    )
    placement.place(context, "gang")

    step(
        "Eight replicas, spread (examples/spread.yaml)",
        "Eight pods of equal size within a second: each must get its own device, on both nodes.",
    )
    placement.place(context, "spread")

    step(
        "A proportional distribution (examples/distribution.yaml)",
        "Items are divided by the capacity of each replica's devices; each container gets its shard and prints it.",
    )
    placement.place_distribution(context, "distribution")

    step("Free devices", "Deleting a GPUWorkload frees its devices; nothing else has to be cleaned up.")
    placement.show_fleet(context)
    thermal.delete_and_free(context, "spread")

    step(
        "Three containers share one GPU (examples/shared.yaml)",
        "Each is promised a part of the memory, and the device is not oversubscribed.",
    )
    placement.place_sharers(context, "shared")


def check_everything(context: DemoContext) -> None:
    """Verifies everything that still runs again: no device twice, nothing changed."""
    context.terminal.step(
        "Verify everything again", "The first results must still hold after everything that happened since."
    )
    found: list[WorkloadEvidence] = []
    for name in context.verified:
        try:
            found.append(context.evidence(name))
        except EvidenceError as error:
            context.note(Disagreement(name, "demo", str(error)))
    fleet = context.fleet()
    placement.show_fleet(context)
    problems = compare(found, fleet, sources=context.collector.sources)
    context.note(*problems)
    if not problems:
        what = placement.devices_in_containers(found)
        context.terminal.ok(f"{what} of {tables.counted(len(found), 'workload')}: all sources agree")


def summarize(terminal: Terminal, problems: list[Disagreement]) -> int:
    """Prints times and disagreements, and returns the exit code."""
    terminal.finish()
    terminal.console.print()
    terminal.show(tables.times_table(terminal.times, terminal.total_seconds))
    terminal.console.print()
    if not problems:
        terminal.ok("every check passed; all sources agree")
        return 0
    terminal.fail("disagreements:")
    for problem in problems:
        terminal.quote(str(problem))
    return 1


def show_next_commands(context: DemoContext, driver: SimulatedDriver) -> None:
    """Prints commands for what to do next."""
    terminal, node = context.terminal, context.cluster.nodes[0].name
    gpu = next((gpu for gpu in context.fleet().gpus if gpu.node == node), None)
    terminal.console.print()
    terminal.say("The cluster keeps running. To inspect it:")
    for line in exports(context.cluster):
        terminal.command(line)
    terminal.command("kubectl get gputelemetries")
    terminal.command(f"kubectl get gpuworkloads --namespace={WORKLOAD_NAMESPACE}")
    terminal.command(f"kubectl describe gpuworkload impossible --namespace={WORKLOAD_NAMESPACE}")
    if gpu:
        terminal.say("To change a simulated GPU's readings and watch telemetry (Temp C is the node's mean):")
        terminal.command(driver.command(node, gpu.uuid, thermal.HOT_CELSIUS))
        terminal.command(f"kubectl get gputelemetry {node} --watch")
    terminal.say("To run the demo again on the same cluster, for example after a change of the code:")
    terminal.command("make demo")
    terminal.say("To play the whole recording, two minutes, without cluster and root:")
    terminal.command("make demo-recorded")
    terminal.say("To remove everything:")
    terminal.command("make demo-down")
