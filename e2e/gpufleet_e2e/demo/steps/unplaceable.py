"""The step of a request that no GPU can meet: it must wait without a placement, and explain why in numbers."""

import re

from gpufleet_e2e.demo.context import WORKLOAD_NAMESPACE, DemoContext, examples
from gpufleet_e2e.demo.steps.thermal import explained
from gpufleet_e2e.proof import WaitTimeoutError
from gpufleet_e2e.proof.contract import WORKLOAD_LABEL


def show_unplaceable(context: DemoContext, file: str) -> None:
    """Applies the example, shows kubectl's explanation, and checks that nothing was placed."""
    terminal, (found,) = context.terminal, examples(file)
    name = str(found["metadata"]["name"])
    terminal.command(f"kubectl apply --namespace={WORKLOAD_NAMESPACE} -f examples/{file}.yaml")
    context.apply(found)
    try:
        waiting = context.collector.wait_for_workload(
            WORKLOAD_NAMESPACE, name, explained, timeout_seconds=context.timeout_seconds
        )
    except WaitTimeoutError as error:
        context.check(holds=False, subject=name, claim="it explains why it waits", otherwise=str(error))
        return
    terminal.progress(f"{name}: explained")
    for verb in ("get", "describe"):
        words = (verb, "gpuworkload", name, f"--namespace={WORKLOAD_NAMESPACE}")
        terminal.command(f"kubectl {' '.join(words)}")
        terminal.quote(sections(context.cluster.kubectl(*words).stdout, "Explanation", "Events"))
    explanation = waiting["status"]["explanation"]
    message = explanation["message"]
    context.check(
        holds=bool(re.search(r"\d", message)) and bool(explanation.get("ineligibleDevices")),
        subject=name,
        claim=f"it explains why: {explanation['devicesConsidered']} devices considered, each with its reason",
        otherwise=message,
    )
    context.check(
        holds="nearestMiss" in explanation,
        subject=name,
        claim=f"it names the nearest miss: {explanation.get('nearestMiss', {}).get('message', '')}",
    )
    pods = context.collector.pods(WORKLOAD_NAMESPACE, f"{WORKLOAD_LABEL}={name}")
    bound = [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName")]
    context.check(holds=not bound, subject=name, claim="none of its pods is on a node", otherwise=", ".join(bound))


def sections(text: str, *titles: str) -> str:
    """Extracts the sections with these titles from the output of `kubectl describe`; everything when there are none."""
    kept: list[str] = []
    depth = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.strip().removesuffix(":") in titles:
            depth = indent
        elif depth is not None and indent <= depth:
            depth = None
        if depth is not None:
            kept.append(line)
    return "\n".join(kept) or text
