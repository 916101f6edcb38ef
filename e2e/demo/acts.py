"""The acts that apply an example, wait until it is placed, and put the proof on the screen."""

from functools import partial
from time import monotonic

from rich.console import RenderableType
from rich.table import Table

from demo import tables
from demo.stage import WORKLOAD_NAMESPACE, Stage, example
from proof import EvidenceError, WaitTimeoutError, WorkloadEvidence, compare, compare_shards
from proof.evidence import FleetEvidence


def show_fleet(stage: Stage, mark: str = "") -> None:
    """The table of all GPUs, as it is now."""
    stage.screen.show(_fleet_table(stage, mark))


def place(stage: Stage, name: str) -> WorkloadEvidence:
    """Apply an example, watch its way to Ready with the fleet beside it, and prove its devices.

    A workload that isn't Ready in time is noted as a problem; its evidence then says how far it came.
    """
    screen = stage.screen
    found = example(name)
    workload = str(found["metadata"]["name"])
    screen.command(f"kubectl apply --namespace={WORKLOAD_NAMESPACE} -f examples/{name}.yaml")
    begin = monotonic()
    stage.apply(found)
    with screen.live(partial(_draw_fleet, stage)):
        ready = follow(stage, workload)
    if ready:
        screen.progress(f"{workload}: Ready {monotonic() - begin:.1f} s after kubectl apply")
    return prove(stage, workload)


def follow(stage: Stage, workload: str) -> bool:
    """Wait until the workload is Ready; note it as a problem when it isn't in time."""
    try:
        stage.wait_until_ready(workload)
    except WaitTimeoutError as error:
        stage.check(holds=False, subject=workload, claim=f"{workload} becomes Ready", otherwise=str(error))
        return False
    return True


def prove(stage: Stage, workload: str) -> WorkloadEvidence:
    """Ask every source about the workload's devices, show the answers, and note what does not fit."""
    evidence, fleet = stage.evidence(workload), stage.fleet()
    stage.standing.append(workload)
    stage.screen.show(tables.proof_table(evidence, fleet))
    _judge(stage, evidence, fleet)
    return evidence


def place_distribution(stage: Stage, name: str) -> WorkloadEvidence:
    """As `place`, and prove the shares too."""
    evidence = place(stage, name)
    stage.screen.show(tables.shard_table(evidence))
    problems = compare_shards(evidence)
    stage.note(*problems)
    if not problems:
        stage.screen.good(f"the shards tile 0..{evidence.items:,} exactly, and status, env and log name the same ones")
    return evidence


def _judge(stage: Stage, evidence: WorkloadEvidence, fleet: FleetEvidence) -> None:
    problems = compare([evidence], fleet)
    stage.note(*problems)
    if not problems:
        devices, containers = sum(len(replica.picked) for replica in evidence.replicas), len(evidence.replicas)
        what = f"{tables.counted(devices, 'device')} in {tables.counted(containers, 'container')}"
        stage.screen.good(f"{what}: all six sources name the same")


def _fleet_table(stage: Stage, mark: str = "") -> Table:
    return tables.fleet_table(stage.fleet(), stage.screen.console.width, home=WORKLOAD_NAMESPACE, mark=mark)


def _draw_fleet(stage: Stage) -> RenderableType:
    """The fleet for a live screen: a cluster that can't be read for a moment must not end the story."""
    try:
        return _fleet_table(stage)
    except EvidenceError as error:
        return str(error)
