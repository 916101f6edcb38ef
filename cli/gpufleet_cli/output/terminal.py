"""Prints results to stdout, as JSON or tables, and notes to stderr, so that a pipe gets only the result.

On a terminal a table drops optional columns until it fits, and then wraps cells. In a pipe it is as wide as necessary,
without colors. NO_COLOR and COLUMNS are honored.
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
from rich.tree import Tree

from gpufleet_cli.view.text_tree import TextTree

UNLIMITED = 10_000
"""Width of a screen without terminal."""
_MIN_TEXT_WIDTH = 24
"""A text column is not made narrower than this while another column can be dropped."""
_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `spare`: it is dropped on a narrow terminal, the one with the highest number first; 0 is never dropped.
    `firm`: its cells are not wrapped while wrapping other columns is enough.
    """

    header: str
    number: bool = False
    spare: int = 0
    firm: bool = False


@dataclass(frozen=True, slots=True)
class Screen:
    """Prints to stdout. Without `headers`, tables have no header."""

    console: Console
    headers: bool = True

    @classmethod
    def of(cls, width: int | None = None, *, headers: bool = True) -> "Screen":
        """Returns a screen of the terminal's width, or of `width`; unlimited without terminal, COLUMNS and `width`."""
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False, width=width)
        if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = UNLIMITED
        return cls(console, headers)

    def line(self, text: str, style: str = "") -> None:
        """Prints a paragraph, wrapped at the width."""
        self._print(Text(text, style=style))

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """Prints a table with its header, or nothing without rows. Unknown values are "-"."""
        if not rows:
            return
        shown = list(range(len(columns)))
        while (needed := _needed(columns, rows, shown)) > self.console.width:
            spare = [i for i in shown if columns[i].spare]
            if not spare:
                break
            shown.remove(max(spare, key=lambda i: (columns[i].spare, i)))
        drawn = [[column.header for column in columns], *rows] if self.headers else rows
        widths = [_longest(drawn, index) for index in shown]
        fits = sum(widths) + _GAP * (len(shown) - 1) <= self.console.width
        if fits and all(text.isprintable() for row in rows for text in row):
            self._whole_lines(columns, drawn, shown, widths)
            return
        self._print(_table(columns, rows, shown, firm=needed <= self.console.width, headers=self.headers))

    def tree(self, root: TextTree) -> None:
        """Prints a tree, its texts wrapped at the width."""
        self._print(_rich_tree(root, Tree(Text(root.text, style=root.style))))

    def clear(self) -> None:
        """Clears the terminal, if this is one."""
        if self.console.is_terminal:
            self.console.file.write("\x1b[H\x1b[2J")

    def _whole_lines(
        self, columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int], widths: Sequence[int]
    ) -> None:
        """Prints rows, of which the first can be the header, without wrapping. rich takes a millisecond for each."""

        def line(cells: Sequence[str]) -> str:
            gaps = [" " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
            parts = zip(shown, cells, gaps, strict=True)
            return (" " * _GAP).join(gap + cell if columns[i].number else cell + gap for i, cell, gap in parts).rstrip()

        for number, row in enumerate(rows):
            drawn = line([row[index] for index in shown])
            if number == 0 and self.headers:
                self._print(Text(drawn, style="bold", no_wrap=True))
            else:
                self.console.file.write(f"{drawn}\n")

    def _print(self, what: Text | Table | Tree) -> None:
        """Prints without the trailing blanks that rich adds."""
        with self.console.capture() as drawn:
            self.console.print(what, overflow="fold")
        for line in drawn.get().splitlines():
            self.console.file.write(f"{line.rstrip()}\n")


def write_json(value: Any) -> None:
    """Prints one line of JSON, keys in the documented order."""
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def write_notes(notes: Iterable[str]) -> None:
    """Prints one line per note to stderr."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    """Returns the width at which these columns are readable."""
    total = _GAP * (len(shown) - 1)
    for index in shown:
        column = columns[index]
        longest = max(cell_len(column.header), _longest(rows, index))
        total += longest if column.firm or column.number else min(longest, _MIN_TEXT_WIDTH)
    return total


def _longest(rows: Sequence[Sequence[str]], index: int) -> int:
    return max(cell_len(row[index]) for row in rows)


def _rich_tree(node: TextTree, tree: Tree) -> Tree:
    for child in node.children:
        _rich_tree(child, tree.add(Text(child.text, style=child.style)))
    return tree


def _table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], shown: Iterable[int], *, firm: bool, headers: bool
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", show_header=headers)
    for index in shown:
        column = columns[index]
        side: Literal["left", "right"] = "right" if column.number else "left"
        whole = firm and (column.firm or column.number)
        table.add_column(Text(column.header), justify=side, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(Text(row[index]) for index in shown))
    return table
