"""Recommendations as a table and for json and yaml."""

from collections.abc import Sequence

from gpufleet_cli.output.terminal import Column, Screen
from gpufleet_cli.view.demand_view import DemandView
from gpufleet_operator.model.lenient_json import Json


def table(screen: Screen, found: Sequence[DemandView], *, wide: bool, namespaces: bool) -> None:
    """Prints one line per template.

    Args:
        screen: Where to.
        found: What to print.
        wide: All columns.
        namespaces: Whether they may have different namespaces.
    """
    columns = [Column("OWNER", firm=True), Column("CONTAINER", spare=1, firm=True), Column("RECOMMENDATION")]
    rows = [[f"{one.owner_kind}/{one.owner}", one.container, one.message] for one in found]
    if namespaces:
        columns = [Column("NAMESPACE", firm=True), *columns]
        rows = [[one.namespace, *row] for one, row in zip(found, rows, strict=True)]
    if wide:
        numbers = ("RUNS", "TOTAL", "PROMISED-MIB", "MEDIAN-MIB", "P80-MIB", "MAX-MIB", "RECOMMENDED-MIB")
        columns = [*columns, *(Column(name, number=True) for name in numbers), Column("IMAGE")]
        rows = [[*row, *_numbers(one), one.image or "-"] for one, row in zip(found, rows, strict=True)]
    screen.table(columns, rows)


def shape(one: DemandView) -> Json:
    """Returns a recommendation for json and yaml."""
    return {
        "namespace": one.namespace,
        "name": one.name,
        "owner": {"kind": one.owner_kind, "name": one.owner},
        "container": one.container,
        "image": one.image,
        "runs": one.runs,
        "totalRuns": one.total_runs,
        "promisedMiB": one.promised_mib,
        "medianMiB": one.median_mib,
        "p80MiB": one.p80_mib,
        "maxMiB": one.max_mib,
        "recommendedMiB": one.recommended_mib,
        "message": one.message,
    }


def _numbers(one: DemandView) -> list[str]:
    values = (
        one.runs,
        one.total_runs,
        one.promised_mib,
        one.median_mib,
        one.p80_mib,
        one.max_mib,
        one.recommended_mib,
    )
    return ["-" if value is None else str(value) for value in values]
