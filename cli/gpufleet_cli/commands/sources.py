"""Builds what several commands take from their options."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_api.names import STALE_AFTER_SECONDS
from gpufleet_cli.analysis.fleet_edits import FleetEdits
from gpufleet_cli.cluster.kinds import DEMANDS, NODES, PODS, PRIORITY_CLASSES, TELEMETRY, WORKLOADS, ObjectKind
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.cluster.object_lists import ObjectLists
from gpufleet_cli.commands.live.reading import read
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.documents import STDIN, Document
from gpufleet_cli.input.fleet_files import FleetDocuments
from gpufleet_cli.input.manifests import ClusterRules
from gpufleet_cli.input.saved_objects import documents
from gpufleet_cli.input.telemetry_age import AgePolicy
from gpufleet_cli.options.target import Target
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.pod_policy import PodPolicy

_CLUSTER = "the cluster"


def fleet_documents(
    target: Target, now: str | None, stale_after: float | None, *, preempt: bool = False, learns: bool = False
) -> FleetDocuments:
    """Returns the objects of a fleet, of a cluster or of saved files.

    Args:
        target: The cluster or the files.
        now: Time at which the age of saved telemetry is checked; not for a cluster.
        stale_after: Age in seconds after which telemetry is not used.
        preempt: Whether GPUWorkloads and PriorityClasses are read.
        learns: Whether GPUDemands are read.

    Raises:
        InputError: `now` is not a time or does not apply, or the objects cannot be read.
    """
    clock = datetime.now(UTC)
    if target.saved:
        where = ", ".join(map(str, target.files))
        return FleetDocuments.of(where, documents(target.files), AgePolicy.parse(now, stale_after, clock))
    if now is not None:
        raise InputError("--now requires --from: the telemetry of a cluster is taken as of now")
    more = [*([WORKLOADS, PRIORITY_CLASSES] if preempt else []), *([DEMANDS] if learns else [])]
    limit = STALE_AFTER_SECONDS if stale_after is None else stale_after
    lists = read(target, [TELEMETRY], [NODES, PODS, *more], stale_after_seconds=limit)
    age = AgePolicy.parse(None, limit, clock)
    telemetry, nodes, pods = (_listed(lists, kind) for kind in (TELEMETRY, NODES, PODS))
    workloads, classes, demands = (_listed(lists, kind) for kind in (WORKLOADS, PRIORITY_CLASSES, DEMANDS))
    known = PODS not in lists.unreadable
    return FleetDocuments(_CLUSTER, telemetry, nodes, pods, known, age, workloads, classes, demands, lists.renewals)


def namespace_of(target: Target) -> str | None:
    """Returns the namespace of manifests that name none: that of the flags or the context; None: the default."""
    return target.connection.namespace if target.saved else Kubectl(target.connection).namespace()


def _listed(lists: ObjectLists, kind: ObjectKind) -> list[Document]:
    return [Document(_CLUSTER, kind.kind, kind.api_version, one["metadata"]["name"], one) for one in lists.of(kind)]


def cluster_rules(resource: str, schedulers: str, forbidden_resources: str, tolerate_taints: str) -> ClusterRules:
    """Returns the operator's settings; the lists are separated by commas, as its flags."""
    policy = PodPolicy(_names(forbidden_resources), _names(schedulers), _names(tolerate_taints))
    return ClusterRules(Resources(resource), policy)


def edits(without: Sequence[str] | None, free: Sequence[str] | None) -> FleetEdits:
    """Returns the edits of `--without` and `--free`."""
    return FleetEdits(without or (), free or ())


def check_stdin(manifests: Sequence[Path], target: Target) -> None:
    """Raises InputError when stdin is given for more than one file."""
    if [*manifests, *target.files].count(STDIN) > 1:
        raise InputError("'-' (stdin) may be given only once")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
