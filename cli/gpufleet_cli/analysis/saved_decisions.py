"""`--save` and `gpufleet replay`: decisions with what they were made from, made again and compared byte for byte."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gpufleet_cli.analysis.fleet_edits import Edits
from gpufleet_cli.errors import InputError
from gpufleet_operator.placement import replay as engine
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.replay import Record


@dataclass(frozen=True, slots=True)
class Replayed:
    """One saved decision, and the one that is made of the same input now."""

    saved: Record
    made: Record
    size: int
    """Bytes of the saved record."""
    same: bool
    """Byte for byte; with edits the input differs, so that the decisions alone are compared."""


def save(path: Path, records: Iterable[Record]) -> None:
    """One line for each decision. Raises InputError when the file can't be written."""
    try:
        path.write_bytes(b"".join(engine.save(record) for record in records))
    except OSError as error:
        raise InputError(f"--save {path}: {error.strerror}") from error


def replay(path: Path, edits: Edits) -> list[Replayed]:
    """Make every decision of a file again, from what it was made from or from that after `edits`.

    Raises:
        InputError: the file can't be read or is no such file, or an edit names what isn't there.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not lines:
        raise InputError(f"{path}: holds no decision")
    return [_replay(f"{path}, line {number}", line, edits) for number, line in enumerate(lines, start=1)]


def _replay(where: str, line: bytes, edits: Edits) -> Replayed:
    try:
        saved = engine.load(line)
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: is no decision that `gpufleet simulate --save` wrote: {error}") from error
    try:
        made = engine.replay(saved, edits.apply if edits else None)
    except PlacementError as error:
        raise InputError(f"{where}: {error}") from error
    same = saved.decision == made.decision if edits else engine.save(made) == line
    return Replayed(saved, made, len(line), same)
