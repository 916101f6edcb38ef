"""`gpufleet cordon`, `uncordon`, `drain` and `acknowledge`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION, TELEMETRY_PLURAL
from gpufleet_cli.cluster.failures import near
from gpufleet_cli.cluster.kinds import TELEMETRY
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.cluster.lists import read_lists
from gpufleet_cli.errors import ClusterError, ForbiddenError, InputError, MissingObjectError
from gpufleet_cli.exit_codes import PROBLEMS, SUCCESS
from gpufleet_cli.freshness import time_of
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.terminal import write_notes
from gpufleet_cli.view import lookup
from gpufleet_cli.view.cordons import CordonRequest, JsonPatch, acknowledgment, cordon_patch, uncordon_patch
from gpufleet_cli.view.fleet_view import fleet_view
from gpufleet_cli.view.gpu_view import GPUView
from gpufleet_common import timestamps
from gpufleet_operator.model.lenient_json import Json

_ATTEMPTS: Final = 5
_POLL_SECONDS: Final = 2.0
_ROLE: Final = "bind the ClusterRole gpufleet-cordon, which has the verb cordon (docs/operations/gpu-maintenance.md)"


def cordon(target: Target, names: list[str], reason: str | None, by: str | None, until: str | None) -> None:
    """Takes GPUs out of service."""
    for name in names:
        gpu = _change(target, name, lambda one, gpu: cordon_patch(one, _request(gpu, reason, by, until)), "cordon")
        typer.echo(f"{gpu.node}/{gpu.index} {gpu.uuid} cordoned")


def uncordon(target: Target, names: list[str]) -> None:
    """Returns GPUs to service."""
    for name in names:
        gpu = _change(target, name, lambda one, gpu: uncordon_patch(one, gpu.uuid), "uncordon")
        typer.echo(f"{gpu.node}/{gpu.index} {gpu.uuid} {'uncordoned' if gpu.cordon is not None else 'is not cordoned'}")


def drain(
    target: Target, name: str, reason: str | None, by: str | None, until: str | None, *, timeout_seconds: float
) -> int:
    """Cordons a GPU, has its pods evicted, and waits until they are gone. Returns the exit code."""

    def patch(one: Json, gpu: GPUView) -> JsonPatch:
        return cordon_patch(one, _request(gpu, reason, by, until, drain=True))

    gpu = _change(target, name, patch, "drain")
    label = f"{gpu.node}/{gpu.index} {gpu.uuid}"
    typer.echo(f"{label} cordoned, its pods are evicted")
    end, said = time.monotonic() + timeout_seconds, ""
    while True:
        _, gpu = _find(Kubectl(target.connection), gpu.uuid)
        left = [f"{use.namespace}/{use.pod}" for use in gpu.uses]
        if not left:
            typer.echo(f"{label} drained")
            return SUCCESS
        waits = f"waits for {', '.join(left)}"
        if waits != said:
            typer.echo(f"{label} {waits}")
            said = waits
        if time.monotonic() >= end:
            write_notes([f"{label} is not empty after {timeout_seconds:.0f} s: {_cause(gpu)}"])
            return PROBLEMS
        time.sleep(_POLL_SECONDS)


def acknowledge(target: Target, node: str, name: str | None) -> None:
    """Acknowledges the faults of a node or of one of its GPUs up to the agent's last report."""
    kubectl = Kubectl(target.connection)
    lists = read_lists(kubectl, [TELEMETRY])
    found = {one["metadata"]["name"]: one for one in lists.of(TELEMETRY)}
    if node not in found:
        raise MissingObjectError(f'node "{node}" has no GPUTelemetry{near(node, list(found))}')
    view = fleet_view([found[node]], now=lists.now)
    gpu = lookup.gpu(view, f"{node}/{name}" if name and name.isdigit() else name) if name else None
    gpus = [gpu] if gpu is not None else list(view.gpus)
    faults = [f"{one.index} {one.uuid}: {fault}" for one in gpus for fault in one.faults]
    value = acknowledgment(found[node], gpu.uuid if gpu else None)
    if not value:
        raise InputError(f"{node}: its agent has not reported yet")
    annotation = f"{ACKNOWLEDGED_FAULTS_ANNOTATION}={value}"
    kubectl.run("annotate", TELEMETRY_PLURAL, node, annotation, "--overwrite", about=TELEMETRY_PLURAL)
    for fault in faults:
        typer.echo(f"{node}/{fault} acknowledged")
    if not faults:
        typer.echo(f"{node}: no fault at present; faults up to {value.rpartition('=')[2]} are acknowledged")


def _cause(gpu: GPUView) -> str:
    """Returns why pods may still have a GPU that is drained."""
    if any(use.workload is not None for use in gpu.uses):
        return "a PodDisruptionBudget may not allow the eviction: see the event EvictionBlocked of the GPUWorkload"
    return "pods without a controller, of a DaemonSet, and static pods are not evicted: delete them"


def until_time(until: str | None, hours: float | None) -> str | None:
    """Returns the end of a cordon by `--until` or `--for-hours`.

    Raises:
        InputError: It is not a time, is in the past, or both are given.
    """
    now = datetime.now(UTC)
    if hours is not None:
        if until is not None:
            raise InputError("--until and --for-hours are mutually exclusive")
        return timestamps.seconds(now + timedelta(hours=hours))
    if until is None:
        return None
    moment = time_of(until)
    if moment is None:
        raise InputError(f"--until {until}: must be an RFC 3339 time, such as 2026-01-02T03:04:05Z")
    if moment <= now:
        raise InputError(f"--until {until}: must be in the future")
    return until


def _request(
    gpu: GPUView, reason: str | None, by: str | None, until: str | None, *, drain: bool | None = None
) -> CordonRequest:
    if reason is None and gpu.cordon is None:
        raise InputError("--reason is required: it is shown to the users whose pods do not get the GPU")
    return CordonRequest(gpu.uuid, reason, by, until, drain)


def _change(target: Target, name: str, patch: Callable[[Json, GPUView], JsonPatch], verb: str) -> GPUView:
    """Patches the GPUTelemetry of a GPU, again when another writer was faster. Returns the GPU as it was."""
    kubectl = Kubectl(target.connection)
    for attempt in range(1, _ATTEMPTS + 1):
        telemetry, gpu = _find(kubectl, name)
        wanted = patch(telemetry, gpu)
        if not wanted:
            return gpu
        try:
            kubectl.patch(TELEMETRY_PLURAL, gpu.node, wanted, kind="json")
        except ForbiddenError as error:
            raise ForbiddenError(f"{verb} {gpu.uuid}: {error}: {_ROLE}") from error
        except MissingObjectError:
            raise
        except ClusterError as error:
            # A failed test of the patch is answered with 422: the operator wrote a reservation at the same time.
            if attempt == _ATTEMPTS or "request is invalid" not in str(error).lower():
                raise
            continue
        return gpu
    raise AssertionError("unreachable")


def _find(kubectl: Kubectl, name: str) -> tuple[Json, GPUView]:
    lists = read_lists(kubectl, [TELEMETRY])
    gpu = lookup.gpu(fleet_view(lists.of(TELEMETRY), now=lists.now), name)
    return next(one for one in lists.of(TELEMETRY) if one["metadata"]["name"] == gpu.node), gpu
