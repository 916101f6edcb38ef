"""The whole story in order: each step's title, why it matters, and the act behind it."""

from gpufleet_e2e.demo import install, tables
from gpufleet_e2e.demo.context import WORKLOAD_NAMESPACE, DemoContext
from gpufleet_e2e.demo.driver import SimulatedDriver
from gpufleet_e2e.demo.steps import placement, recorded_node, thermal
from gpufleet_e2e.demo.steps.unplaceable import show_unplaceable
from gpufleet_e2e.demo.terminal import Terminal
from gpufleet_e2e.proof import Disagreement, EvidenceError, WorkloadEvidence, compare
from gpufleet_testbed import exports

STEPS = 13
"""Two before the context stands (in `cli.py`), eleven here."""


def run_steps(context: DemoContext, driver: SimulatedDriver) -> None:
    """Everything after the cluster and its GPUs are there. What does not fit is in `context.problems`."""
    step = context.terminal.step
    step(
        "Install the chart and wait for live telemetry",
        "One agent per GPU node reads NVML and publishes a GPUTelemetry object; one operator decides from them.",
    )
    install.install(context)
    placement.show_fleet(context)

    step(
        "One GPU for one container (examples/single.yaml)",
        "The operator picks the exact device. The proof is that six sources name that same UUID:",
    )
    context.terminal.show(tables.legend_table())
    placement.place(context, "single")

    step(
        "A gang of four GPUs (examples/gang.yaml)",
        "All of them at once or none: training that gets three of four GPUs only holds them idle.",
    )
    placement.place(context, "gang")

    step(
        "Eight replicas, spread (examples/spread.yaml)",
        "Eight pods of equal size in the same second: each must get its own device, on both nodes.",
    )
    placement.place(context, "spread")

    step(
        "A proportional distribution (examples/distribution.yaml)",
        "Work is divided by what each replica's devices can take; each container is told its share and prints it.",
    )
    placement.place_distribution(context, "distribution")

    step("The fleet so far, and room again", "Deleting a GPUWorkload frees its devices; nothing is left to clean up.")
    placement.show_fleet(context)
    thermal.delete_and_free(context, "spread")

    step(
        "Three containers share one GPU (examples/shared.yaml)",
        "Small work needs no GPU of its own: each is promised a part of the memory, and the device is not oversold.",
    )
    placement.place_sharers(context, "shared")

    step(
        "The best GPU gets hot",
        "Decisions follow live telemetry: the device that was best a moment ago is avoided, and the reason is given.",
    )
    thermal.avoid_hot_gpu(context, driver)

    step(
        "Ask for the impossible (examples/impossible.yaml)",
        "What can't be placed waits without holding anything, and says why in words with numbers.",
    )
    show_unplaceable(context, "impossible")

    step(
        "The agent on a recorded node (examples/recordings/hot.jsonl)",
        "Hardware is one small interface: a recording stands in for a driver, as another vendor's driver would.",
    )
    recorded_node.show_recorded_node(context)


def check_everything(context: DemoContext) -> None:
    """Look at everything that still runs once more, all together: no device twice, nothing disturbed."""
    context.terminal.step(
        "All together, once more", "What was proven first must still hold after all that happened since."
    )
    found: list[WorkloadEvidence] = []
    for name in context.standing:
        try:
            found.append(context.evidence(name))
        except EvidenceError as error:
            context.note(Disagreement(name, "demo", str(error)))
    fleet = context.fleet()
    placement.show_fleet(context)
    problems = compare(found, fleet)
    context.note(*problems)
    if not problems:
        what = placement.devices_in_containers(found)
        context.terminal.good(f"{what} of {tables.counted(len(found), 'workload')}: all sources agree")


def summarize(terminal: Terminal, problems: list[Disagreement]) -> int:
    """The last lines: times and what did not fit. Returns the exit code."""
    terminal.finish()
    terminal.console.print()
    terminal.show(tables.times_table(terminal.times, terminal.total_seconds))
    terminal.console.print()
    if not problems:
        terminal.good("everything that was claimed was seen; nothing disagrees")
        return 0
    terminal.bad("what does not fit:")
    for problem in problems:
        terminal.quote(str(problem))
    return 1


def show_next_commands(context: DemoContext, driver: SimulatedDriver) -> None:
    """What the reader can type now."""
    terminal, node = context.terminal, context.cluster.nodes[0].name
    gpu = next((gpu for gpu in context.fleet().gpus if gpu.node == node), None)
    terminal.console.print()
    terminal.say("The cluster goes on. To look around:")
    for line in exports(context.cluster):
        terminal.command(line)
    terminal.command("kubectl get gputelemetries")
    terminal.command(f"kubectl get gpuworkloads --namespace={WORKLOAD_NAMESPACE}")
    terminal.command(f"kubectl describe gpuworkload impossible --namespace={WORKLOAD_NAMESPACE}")
    if gpu:
        terminal.say(
            "To change what a simulated GPU reports, and see telemetry follow (Temp C is the mean of the node):"
        )
        terminal.command(driver.command(node, gpu.uuid, thermal.HOT_CELSIUS))
        terminal.command(f"kubectl get gputelemetry {node} --watch")
    terminal.say("To play it once more on the same cluster, as after a change of the code:")
    terminal.command("make demo")
    terminal.say("To see the whole recording, two minutes, with no cluster and no root:")
    terminal.command("make demo-recorded")
    terminal.say("To remove everything:")
    terminal.command("make demo-down")
