"""`gpufleet doctor`."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.commands.live.reading import read, unconfirmed
from gpufleet_cli.doctor.examine import Examination, examine
from gpufleet_cli.doctor.facts import EXAMINED, ClusterFacts
from gpufleet_cli.errors import ClusterError
from gpufleet_cli.exit_codes import PROBLEMS, SUCCESS
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.rendering import OutputOptions, Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_cli.view.text_tree import TextTree


def doctor(target: Target, output: OutputOptions) -> int:
    """Prints the problems of the installation, and returns the exit code.

    Raises:
        ClusterError: Nothing can be read, so nothing can be checked.
    """
    lists = read(target, (), EXAMINED, quiet=True)
    if all(kind in lists.unreadable for kind in EXAMINED):
        raise ClusterError(f"nothing can be checked: {next(iter(lists.unreadable.values()))}")
    result = examine(ClusterFacts.of(lists, version("gpufleet"), _own_skew(target)))

    def draw(screen: Screen, _wide: bool) -> None:
        for one in result.found:
            children = (TextTree(f"cause: {one.cause}"), TextTree(f"cure: {one.cure}"))
            screen.tree(TextTree(f"{one.check} {one.about}", children, "bold red"))
        screen.line(summary(result), "bold" if result.found else "bold green")

    rendering = Rendering(lambda: _shape(result), lambda: sorted({one.check for one in result.found}), draw)
    write(rendering, output.format, headers=output.headers)
    by_reason: dict[str, list[str]] = {}
    for title, why in result.skipped:
        by_reason.setdefault(why, []).append(title)
    write_notes(f"not checked: {', '.join(titles)}: {why}" for why, titles in by_reason.items())
    write_notes(unconfirmed(lists))
    return PROBLEMS if result.found else SUCCESS


def summary(result: Examination) -> str:
    """Returns `2 problems found; 14 checks passed, 1 not made; gpufleet-operator-x leads`."""
    number = len(result.found)
    problems = "no problem found" if not number else f"{number} problem{'' if number == 1 else 's'} found"
    skipped = f", {len(result.skipped)} not made" if result.skipped else ""
    leads = f"; {', '.join(result.leaders)} leads" if result.leaders else ""
    passed = f"{len(result.passed)} check{'' if len(result.passed) == 1 else 's'} passed"
    return f"{problems}; {passed}{skipped}{leads}"


def _own_skew(target: Target) -> float | None:
    """Returns how far this machine's clock is ahead of the apiserver's, at least; None: unknown."""
    if target.saved:
        return None
    before = datetime.now(UTC)
    try:
        server = Kubectl(target.connection).server_time()
    except ClusterError:
        return None
    after = datetime.now(UTC)
    if server is None or before <= server <= after:
        return None if server is None else 0.0
    return min(((one - server).total_seconds() for one in (before, after)), key=abs)


def _shape(result: Examination) -> dict[str, Any]:
    return {
        "problems": [
            {"check": one.check, "object": one.about, "cause": one.cause, "cure": one.cure} for one in result.found
        ],
        "passed": list(result.passed),
        "notChecked": [{"check": title, "why": why} for title, why in result.skipped],
        "leaders": list(result.leaders),
    }
