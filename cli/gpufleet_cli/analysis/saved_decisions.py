"""Saves decisions together with their input, and makes them again to compare them byte for byte."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gpufleet_cli.analysis.fleet_edits import FleetEdits
from gpufleet_cli.errors import InputError
from gpufleet_operator.placement import replay as engine
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.replay import SavedDecision


@dataclass(frozen=True, slots=True)
class ReplayedDecision:
    """A saved decision, and the one made from the same input now."""

    saved: SavedDecision
    made: SavedDecision
    size: int
    """Bytes of the saved record."""
    same: bool
    """True when both are the same byte for byte. On an edited fleet, whose input differs, only the decisions count."""


def save(path: Path, records: Iterable[SavedDecision]) -> None:
    """Writes one line per decision. Raises InputError when the file cannot be written."""
    try:
        path.write_bytes(b"".join(engine.save(record) for record in records))
    except OSError as error:
        raise InputError(f"--save {path}: {error.strerror}") from error


def replay(path: Path, edits: FleetEdits) -> list[ReplayedDecision]:
    """Makes every decision of a file again, from its input or from its input after `edits`.

    Raises:
        InputError: The file cannot be read or does not contain decisions, or an edit names what is not in the fleet.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not lines:
        raise InputError(f"{path}: no decision found")
    return [_replay(f"{path}, line {number}", line, edits) for number, line in enumerate(lines, start=1)]


def _replay(where: str, line: bytes, edits: FleetEdits) -> ReplayedDecision:
    try:
        saved = engine.load(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: not a decision written by `gpufleet simulate --save`: not JSON") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: not a decision written by `gpufleet simulate --save`: {error}") from error
    try:
        made = engine.replay(saved, edits.apply if edits else None)
    except PlacementError as error:
        raise InputError(f"{where}: {error}") from error
    same = saved.decision == made.decision if edits else engine.save(made) == line
    return ReplayedDecision(saved, made, len(line), same)
