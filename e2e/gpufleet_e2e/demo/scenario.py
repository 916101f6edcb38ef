"""The whole story in order: each step's title, why it matters, and the act behind it."""

from gpufleet_e2e.demo import install, tables
from gpufleet_e2e.demo.context import WORKLOAD_NAMESPACE, Stage
from gpufleet_e2e.demo.driver import Driver
from gpufleet_e2e.demo.steps import placement, recorded_node, thermal
from gpufleet_e2e.demo.steps.unplaceable import ask_for_the_impossible
from gpufleet_e2e.demo.terminal import Screen
from gpufleet_e2e.proof import Disagreement, EvidenceError, WorkloadEvidence, compare
from gpufleet_testbed import exports

STEPS = 13
"""Two before the stage stands (in `cli.py`), eleven here."""


def play(stage: Stage, driver: Driver) -> None:
    """Everything after the cluster and its GPUs are there. What does not fit is in `stage.problems`."""
    step = stage.screen.step
    step(
        "Install the chart and wait for live telemetry",
        "One agent per GPU node reads NVML and publishes a GPUTelemetry object; one operator decides from them.",
    )
    install.install(stage)
    placement.show_fleet(stage)

    step(
        "One GPU for one container (examples/single.yaml)",
        "The operator picks the exact device. The proof is that six sources name that same UUID:",
    )
    stage.screen.show(tables.legend_table())
    placement.place(stage, "single")

    step(
        "A gang of four GPUs (examples/gang.yaml)",
        "All of them at once or none: training that gets three of four GPUs only holds them idle.",
    )
    placement.place(stage, "gang")

    step(
        "Eight replicas, spread (examples/spread.yaml)",
        "Eight pods of equal size in the same second: each must get its own device, on both nodes.",
    )
    placement.place(stage, "spread")

    step(
        "A proportional distribution (examples/distribution.yaml)",
        "Work is divided by what each replica's devices can take; each container is told its share and prints it.",
    )
    placement.place_distribution(stage, "distribution")

    step("The fleet so far, and room again", "Deleting a GPUWorkload frees its devices; nothing is left to clean up.")
    placement.show_fleet(stage)
    thermal.free(stage, "spread")

    step(
        "Three containers share one GPU (examples/shared.yaml)",
        "Small work needs no GPU of its own: each is promised a part of the memory, and the device is not oversold.",
    )
    placement.place_sharers(stage, "shared")

    step(
        "The best GPU gets hot",
        "Decisions follow live telemetry: the device that was best a moment ago is avoided, and the reason is given.",
    )
    thermal.heat(stage, driver)

    step(
        "Ask for the impossible (examples/impossible.yaml)",
        "What can't be placed waits without holding anything, and says why in words with numbers.",
    )
    ask_for_the_impossible(stage, "impossible")

    step(
        "The agent on a recorded node (examples/recordings/hot.jsonl)",
        "Hardware is one small interface: a recording stands in for a driver, as another vendor's driver would.",
    )
    recorded_node.play(stage)


def close(stage: Stage) -> None:
    """Look at everything that still runs once more, all together: no device twice, nothing disturbed."""
    stage.screen.step("All together, once more", "What was proven first must still hold after all that happened since.")
    found: list[WorkloadEvidence] = []
    for name in stage.standing:
        try:
            found.append(stage.evidence(name))
        except EvidenceError as error:
            stage.note(Disagreement(name, "demo", str(error)))
    fleet = stage.fleet()
    placement.show_fleet(stage)
    problems = compare(found, fleet)
    stage.note(*problems)
    if not problems:
        what = placement.devices_in_containers(found)
        stage.screen.good(f"{what} of {tables.counted(len(found), 'workload')}: all sources agree")


def verdict(screen: Screen, problems: list[Disagreement]) -> int:
    """The last lines: times and what did not fit. Returns the exit code."""
    screen.finish()
    screen.console.print()
    screen.show(tables.times_table(screen.times, screen.total_seconds))
    screen.console.print()
    if not problems:
        screen.good("everything that was claimed was seen; nothing disagrees")
        return 0
    screen.bad("what does not fit:")
    for problem in problems:
        screen.quote(str(problem))
    return 1


def what_next(stage: Stage, driver: Driver) -> None:
    """What the reader can type now."""
    screen, node = stage.screen, stage.cluster.nodes[0].name
    gpu = next((gpu for gpu in stage.fleet().gpus if gpu.node == node), None)
    screen.console.print()
    screen.say("The cluster goes on. To look around:")
    for line in exports(stage.cluster):
        screen.command(line)
    screen.command("kubectl get gputelemetries")
    screen.command(f"kubectl get gpuworkloads --namespace={WORKLOAD_NAMESPACE}")
    screen.command(f"kubectl describe gpuworkload impossible --namespace={WORKLOAD_NAMESPACE}")
    if gpu:
        screen.say("To change what a simulated GPU reports, and see telemetry follow (Temp C is the mean of the node):")
        screen.command(driver.command(node, gpu.uuid, thermal.HOT_CELSIUS))
        screen.command(f"kubectl get gputelemetry {node} --watch")
    screen.say("To play it once more on the same cluster, as after a change of the code:")
    screen.command("make demo")
    screen.say("To see the whole recording, two minutes, with no cluster and no root:")
    screen.command("make demo-recorded")
    screen.say("To remove everything:")
    screen.command("make demo-down")
