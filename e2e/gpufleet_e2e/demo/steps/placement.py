"""The acts that apply an example, wait until it is placed, and put the proof on the terminal."""

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
    """The table of all GPUs, as it is now."""
    context.terminal.show(_fleet_table(context, mark))


def place(context: DemoContext, name: str) -> list[WorkloadEvidence]:
    """Apply an example, watch the way of its workloads to Ready with the fleet beside them, and prove their devices.

    A workload that isn't Ready in time is noted as a problem; its evidence then says how far it came.
    """
    terminal = context.terminal
    found = examples(name)
    workloads = [str(one["metadata"]["name"]) for one in found]
    terminal.command(f"kubectl apply --namespace={WORKLOAD_NAMESPACE} -f examples/{name}.yaml")
    begin = monotonic()
    for one in found:
        context.apply(one)
    with terminal.live(partial(_draw_fleet, context)):
        ready = [workload for workload in workloads if follow(context, workload)]
    if ready:
        terminal.progress(f"{', '.join(ready)}: Ready {monotonic() - begin:.1f} s after kubectl apply")
    return [prove(context, workload) for workload in workloads]


def follow(context: DemoContext, workload: str) -> bool:
    """Wait until the workload is Ready; note it as a problem when it isn't in time."""
    try:
        context.wait_until_ready(workload)
    except WaitTimeoutError as error:
        context.check(holds=False, subject=workload, claim=f"{workload} becomes Ready", otherwise=str(error))
        return False
    return True


def prove(context: DemoContext, workload: str) -> WorkloadEvidence:
    """Ask every source about the workload's devices, show the answers, and note what does not fit."""
    evidence, fleet = context.evidence(workload), context.fleet()
    context.standing.append(workload)
    context.terminal.show(tables.proof_table(evidence, fleet))
    _judge(context, evidence, fleet)
    return evidence


def place_distribution(context: DemoContext, name: str) -> None:
    """As `place`, of one workload, and prove its shares too."""
    (evidence,) = place(context, name)
    context.terminal.show(tables.shard_table(evidence))
    problems = compare_shards(evidence)
    context.note(*problems)
    if not problems:
        context.terminal.good(
            f"the shards tile 0..{evidence.items:,} exactly, and status, env and log name the same ones"
        )


def place_sharers(context: DemoContext, name: str) -> None:
    """As `place`, and show what each container was promised of the one device that they share."""
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
        claim=f"{len(replicas)} containers share one GPU, and what they are promised fits into it",
        otherwise=f"{promised:,} MiB are promised of {where}",
    )


def devices_in_containers(workloads: Iterable[WorkloadEvidence]) -> str:
    """`4 devices in 1 container`; a device that is shared counts once."""
    replicas = [replica for workload in workloads for replica in workload.replicas]
    devices = {uuid for replica in replicas for uuid in replica.picked}
    return f"{tables.counted(len(devices), 'device')} in {tables.counted(len(replicas), 'container')}"


def _judge(context: DemoContext, evidence: WorkloadEvidence, fleet: FleetEvidence) -> None:
    problems = compare([evidence], fleet)
    context.note(*problems)
    if not problems:
        context.terminal.good(f"{devices_in_containers([evidence])}: all six sources name the same")


def _fleet_table(context: DemoContext, mark: str = "") -> Table:
    return tables.fleet_table(context.fleet(), context.terminal.console.width, home=WORKLOAD_NAMESPACE, mark=mark)


def _draw_fleet(context: DemoContext) -> RenderableType:
    """The fleet for a live terminal: a cluster that can't be read for a moment must not end the story."""
    try:
        return _fleet_table(context)
    except EvidenceError as error:
        return str(error)
