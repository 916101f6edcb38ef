"""Steps that apply an example, wait until it is placed, and show the evidence."""

from collections.abc import Iterable
from functools import partial
from time import monotonic

from rich.console import RenderableType
from rich.table import Table

from gpufleet_e2e.demo import tables
from gpufleet_e2e.demo.context import WORKLOAD_NAMESPACE, DemoContext, examples
from gpufleet_e2e.proof import EvidenceError, WaitTimeoutError, WorkloadEvidence, compare, compare_shards
from gpufleet_e2e.proof.evidence import FleetEvidence


def show_fleet(context: DemoContext, mark: str = "") -> None:
    """Shows the table of all GPUs."""
    context.terminal.show(_fleet_table(context, mark))


def place(context: DemoContext, name: str) -> list[WorkloadEvidence]:
    """Applies an example, shows the fleet until its workloads are Ready, and verifies their devices.

    A workload that is not Ready in time is recorded as a problem; its evidence then shows its state.
    """
    terminal = context.terminal
    found = examples(name)
    workloads = [str(one["metadata"]["name"]) for one in found]
    terminal.command(f"kubectl apply --namespace={WORKLOAD_NAMESPACE} -f examples/{name}.yaml")
    begin = monotonic()
    for one in found:
        context.apply(one)
    with terminal.live(partial(_draw_fleet, context)):
        ready = [workload for workload in workloads if wait_ready(context, workload)]
    if ready:
        terminal.progress(f"{', '.join(ready)}: Ready {monotonic() - begin:.1f} s after kubectl apply")
    return [verify(context, workload) for workload in workloads]


def wait_ready(context: DemoContext, workload: str) -> bool:
    """Waits until the workload is Ready; records a problem and returns False when it is not in time."""
    try:
        context.wait_until_ready(workload)
    except WaitTimeoutError as error:
        context.check(holds=False, subject=workload, claim=f"{workload} becomes Ready", otherwise=str(error))
        return False
    return True


def verify(context: DemoContext, workload: str) -> WorkloadEvidence:
    """Shows every source's devices of the workload, and records disagreements."""
    evidence, fleet = context.evidence(workload), context.fleet()
    context.verified.append(workload)
    context.terminal.show(tables.proof_table(evidence, fleet))
    _compare(context, evidence, fleet)
    return evidence


def place_distribution(context: DemoContext, name: str) -> None:
    """Places one workload as `place` does, and verifies its shards."""
    (evidence,) = place(context, name)
    context.terminal.show(tables.shard_table(evidence))
    problems = compare_shards(evidence)
    context.note(*problems)
    if not problems:
        context.terminal.ok(f"the shards tile 0..{evidence.items:,} exactly; status, env and log agree")


def place_sharers(context: DemoContext, name: str) -> None:
    """Places workloads as `place` does, and shows the memory promised to each container of the shared device."""
    found = place(context, name)
    fleet = context.fleet()
    context.terminal.show(tables.sharing_table(found, fleet))
    replicas = [(workload.memory_mib or 0, replica) for workload in found for replica in workload.replicas]
    uuids = dict.fromkeys(uuid for _, replica in replicas for uuid in replica.picked)
    gpus = [gpu for uuid in uuids if (gpu := fleet.gpu(uuid))]
    where = " and ".join(f"GPU {gpu.index} of {gpu.node} ({gpu.memory_total_mib or 0:,} MiB)" for gpu in gpus)
    promised = sum(promised for promised, _ in replicas)
    context.check(
        holds=len(gpus) == 1 and promised <= (gpus[0].memory_total_mib or 0),
        subject=name,
        claim=f"{len(replicas)} containers share one GPU, and the promised memory fits into it",
        otherwise=f"{promised:,} MiB promised of {where}",
    )


def devices_in_containers(workloads: Iterable[WorkloadEvidence]) -> str:
    """Describes devices like `4 devices in 1 container`; a shared device counts once."""
    replicas = [replica for workload in workloads for replica in workload.replicas]
    devices = {uuid for replica in replicas for uuid in replica.picked}
    return f"{tables.counted(len(devices), 'device')} in {tables.counted(len(replicas), 'container')}"


def _compare(context: DemoContext, evidence: WorkloadEvidence, fleet: FleetEvidence) -> None:
    problems = compare([evidence], fleet, sources=context.collector.sources)
    context.note(*problems)
    if not problems:
        sources = tables.number_of(evidence.sources)
        context.terminal.ok(f"{devices_in_containers([evidence])}: all {sources} sources agree")


def _fleet_table(context: DemoContext, mark: str = "") -> Table:
    return tables.fleet_table(context.fleet(), context.terminal.console.width, home=WORKLOAD_NAMESPACE, mark=mark)


def _draw_fleet(context: DemoContext) -> RenderableType:
    """Draws the fleet for a live display: a failed read must not end the demo."""
    try:
        return _fleet_table(context)
    except EvidenceError as error:
        return str(error)
