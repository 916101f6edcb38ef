"""Where results go: JSON and tables to stdout, notes to stderr, so that a pipe gets nothing but the result.

A table on a terminal leaves out what it can spare until it fits, and then breaks lines; in a pipe it is as wide as it
needs to be, without colours. NO_COLOR and COLUMNS are honoured.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_ENDLESS = 10_000
"""Columns of a line that nobody looks at."""

_READABLE = 24
"""A text column of this width can still be read."""

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """`spare`: left out on a narrow terminal, the highest number first; 0: always there.

    `firm`: kept on one line for as long as breaking others is enough.
    """

    header: str
    number: bool = False
    spare: int = 0
    firm: bool = False


@dataclass(frozen=True, slots=True)
class Screen:
    """Prints on stdout."""

    console: Console

    @classmethod
    def of(cls, width: int | None = None) -> "Screen":
        """The terminal's width, or `width`; endless where stdout is no terminal and COLUMNS isn't set."""
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False, width=width)
        if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = _ENDLESS
        return cls(console)

    def line(self, text: str, style: str = "") -> None:
        """One paragraph, broken at the width."""
        self._print(Text(text, style=style))

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """A table with its header, or nothing without rows; cells are texts, "-" for what isn't known."""
        if not rows:
            return
        shown = list(range(len(columns)))
        while (needed := _needed(columns, rows, shown)) > self.console.width:
            spare = [i for i in shown if columns[i].spare]
            if not spare:
                break
            shown.remove(max(spare, key=lambda i: (columns[i].spare, i)))
        self._print(_table(columns, rows, shown, firm=needed <= self.console.width))

    def _print(self, what: Text | Table) -> None:
        """Without the blanks that rich puts at the ends of lines."""
        with self.console.capture() as drawn:
            self.console.print(what, overflow="fold")
        for line in drawn.get().splitlines():
            self.console.file.write(f"{line.rstrip()}\n")


def write_json(value: Any) -> None:
    """One line, keys in the documented order."""
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def write_notes(notes: Iterable[str]) -> None:
    """What the user should know of the result, one line each, on stderr."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    """The width that shows these columns well."""
    total = _GAP * (len(shown) - 1)
    for index in shown:
        column = columns[index]
        longest = max(cell_len(text) for text in (column.header, *(row[index] for row in rows)))
        total += longest if column.firm or column.number else min(longest, _READABLE)
    return total


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]], shown: Iterable[int], *, firm: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index in shown:
        column = columns[index]
        side: Literal["left", "right"] = "right" if column.number else "left"
        whole = firm and (column.firm or column.number)
        table.add_column(Text(column.header), justify=side, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(Text(row[index]) for index in shown))
    return table
