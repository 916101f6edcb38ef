"""Builds what several commands take from their options."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_cli.analysis.fleet_edits import FleetEdits
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.documents import STDIN
from gpufleet_cli.input.fleet_files import FleetFiles
from gpufleet_cli.input.manifests import ClusterRules
from gpufleet_cli.input.telemetry_age import AgePolicy
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.pod_policy import PodPolicy


def fleet_files(
    fleet: Sequence[Path],
    nodes: Sequence[Path] | None,
    pods: Sequence[Path] | None,
    now: str | None,
    stale_after: float | None,
) -> FleetFiles:
    """Returns the fleet's files with the policy for their age. Raises InputError when `now` is not a time."""
    return FleetFiles(fleet, nodes or (), pods or (), AgePolicy.parse(now, stale_after, datetime.now(UTC)))


def cluster_rules(resource: str, schedulers: str, foreign_resources: str, tolerate_taints: str) -> ClusterRules:
    """Returns the operator's settings; the lists are separated by commas, as its flags."""
    policy = PodPolicy(_names(foreign_resources), _names(schedulers), _names(tolerate_taints))
    return ClusterRules(Resources(resource), policy)


def edits(without: Sequence[str] | None, free: Sequence[str] | None) -> FleetEdits:
    """Returns the edits of `--without` and `--free`."""
    return FleetEdits(without or (), free or ())


def check_stdin(manifests: Sequence[Path], files: FleetFiles) -> None:
    """Raises InputError when stdin is given for more than one file."""
    if [*manifests, *files.fleet, *files.nodes, *files.pods].count(STDIN) > 1:
        raise InputError("'-' (stdin) may be given only once")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
