"""Tables on terminals of any width and in pipes."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from gpufleet_cli.output import terminal
from gpufleet_cli.output.terminal import Column, Screen
from gpufleet_testing.cli.runner import run_cli

COLUMNS = (
    Column("NODE", firm=True),
    Column("UUID", firm=True, spare=1),
    Column("MODEL", firm=True, spare=5),
    Column("FREE", number=True, spare=2),
    Column("WORDS"),
)
ROWS = [["node-1", "GPU-" + "1" * 36, "NVIDIA H100", "81559", "is held by a pod with a rather long name of its own"]]


def drawn(width: int) -> list[str]:
    file = io.StringIO()
    screen = Screen(Console(file=file, width=width, highlight=False, markup=False))
    screen.table(COLUMNS, ROWS)
    return file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "headers"),
    [
        (140, ["NODE", "UUID", "MODEL", "FREE", "WORDS"]),
        (90, ["NODE", "UUID", "FREE", "WORDS"]),
        (79, ["NODE", "UUID", "WORDS"]),
        (50, ["NODE", "WORDS"]),
    ],
)
def test_spare_columns_are_dropped_until_the_table_fits(width: int, headers: list[str]) -> None:
    header, *rows = drawn(width)
    assert header.split() == headers
    assert all(len(line) <= width for line in (header, *rows))
    words = header.index("WORDS")
    assert " ".join(" ".join(line[words:].split()) for line in rows) == ROWS[0][-1]


def test_other_columns_are_wrapped_not_cut() -> None:
    lines = drawn(16)
    assert all(len(line) <= 16 for line in lines)
    text = "".join("".join(line.split()) for line in lines)
    assert "GPU" not in text
    assert sorted("".join(text.removeprefix("NODEWORDS"))) == sorted("node-1" + "".join(ROWS[0][-1].split()))


@pytest.mark.parametrize("cell", ["GPU 漢字", "two\nlines", "", "bell\a"], ids=["wide", "lines", "empty", "control"])
@pytest.mark.parametrize("headers", [True, False])
def test_table_that_fits_is_drawn_as_by_rich(cell: str, headers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["node-1", "x", cell, "7", "[b]"], ["node-22", "-", "y", "81559", "is held by a pod"]]

    def table() -> str:
        file = io.StringIO()
        Screen(Console(file=file, width=99, highlight=False, markup=False), headers).table(COLUMNS, rows)
        return file.getvalue()

    own = table()
    monkeypatch.setattr(Screen, "_whole_lines", by_rich)
    assert table() == own


def by_rich(
    screen: Screen,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    shown: Sequence[int],
    _widths: Sequence[int],
) -> None:
    body = rows[1:] if screen.headers else rows
    screen._print(terminal._table(columns, body, shown, firm=True, headers=screen.headers))


def test_brackets_and_colons_are_printed_unchanged() -> None:
    file = io.StringIO()
    screen = Screen(Console(file=file, width=80, highlight=False, markup=False, emoji=False))
    screen.table((Column("A"),), [["[bold]x[/] :smile: [0, 2)"]])
    screen.line("[red]y[/] :smile:")
    assert file.getvalue().splitlines() == ["A", "[bold]x[/] :smile: [0, 2)", "[red]y[/] :smile:"]


def test_pipe_gets_whole_lines_without_colors_unless_columns_is_set(
    examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("explain", "-f", examples / "single.yaml", "--from", examples / "fleets" / "faults.yaml")
    piped = run_cli(*arguments)
    assert "\x1b" not in piped.out
    assert len(piped.out.splitlines()) == 1 + 16 + 1
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run_cli(*arguments)
    assert max(map(len, narrow.out.splitlines())) <= 80
    assert "UUID" not in narrow.out
    assert "XID 79" in narrow.out


def test_terminal_gets_colors_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def printed() -> str:
        stdout = Terminal()
        monkeypatch.setattr("sys.stdout", stdout)
        screen = Screen.of(width=60)
        screen.line("placed", "bold green")
        return stdout.getvalue()

    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[1;32m" in printed()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "32" not in printed()
