"""Prints numbered steps, progress lines and tables on a terminal, or as plain lines in a pipe.

rich omits colors and control codes when the output is not a terminal or NO_COLOR is set, and draws boxes in ASCII when
the encoding has no others. This module adds a fixed width for pipes, a live table only on terminals, and step times.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

PIPE_COLUMNS = 120
"""Columns of a pipe."""

INDENT = 2
QUOTE = "  | "
MORE = "  "


@dataclass(frozen=True, slots=True)
class StepTime:
    """Duration of a step."""

    title: str
    seconds: float


class Terminal:
    """Prints the demo. `clock` returns monotonic seconds."""

    def __init__(self, console: Console, steps: int, clock: Callable[[], float] = monotonic) -> None:
        self.console = console
        self._steps = steps
        self._clock = clock
        self._begin = clock()
        self._times: list[StepTime] = []
        self._open: tuple[str, float] | None = None

    def step(self, title: str, why: str) -> None:
        """Begins the next numbered step: what happens, and why it matters."""
        self.finish()
        self._open = (title, self._clock())
        number = f"[{len(self._times) + 1}/{self._steps}]"
        self.console.print()
        self.console.print(Text.assemble((number, "bold cyan"), " ", (title, "bold")))
        self._indented(Text(why, "italic"))

    def finish(self) -> None:
        """Ends the current step, if any, and records its duration."""
        if self._open:
            title, begin = self._open
            self._times.append(StepTime(title, self._clock() - begin))
            self._open = None

    @property
    def times(self) -> tuple[StepTime, ...]:
        """Durations of the steps that have ended."""
        return tuple(self._times)

    @property
    def total_seconds(self) -> float:
        """Time since construction."""
        return self._clock() - self._begin

    def say(self, text: str) -> None:
        """Prints a line without interpreting rich markup."""
        self._indented(Text(text))

    def progress(self, text: str) -> None:
        """Prints a line of progress with the seconds since the step began."""
        seconds = self._clock() - self._open[1] if self._open else 0.0
        self._indented(Text.assemble((f"{seconds:6.1f} s  ", "dim"), text))

    def command(self, text: str) -> None:
        """Prints a command that does or shows the same."""
        self._indented(Text.assemble(("$ ", "dim"), (text, "green")))

    def ok(self, text: str) -> None:
        """Prints a check that passed."""
        self._indented(Text.assemble(("ok  ", "bold green"), text))

    def fail(self, text: str) -> None:
        """Prints a check that failed."""
        self._indented(Text.assemble(("FAIL  ", "bold red"), text))

    def quote(self, text: str) -> None:
        """Prints the output of a program: whole lines in a pipe, wrapped ones on a terminal."""
        for line in text.rstrip().splitlines():
            for number, part in enumerate(self._wrapped(Text(line))):
                lead = QUOTE + MORE if number else QUOTE
                self.console.print(Text(lead) + part, no_wrap=True, overflow="ignore", crop=False)

    def show(self, *parts: RenderableType) -> None:
        """Prints tables."""
        self.console.print(Padding.indent(Group(*parts), INDENT))

    @contextmanager
    def live(self, draw: Callable[[], RenderableType]) -> Iterator[None]:
        """Prints the result of `draw` after the block; on a terminal also twice a second while it runs.

        `draw` is called from another thread and must not raise.
        """
        if self.console.is_terminal:
            with Live(
                console=self.console,
                get_renderable=lambda: Padding.indent(draw(), INDENT),
                refresh_per_second=2,
                transient=True,  # a table higher than the terminal is cut while it is redrawn; the whole one follows
            ):
                yield
        else:
            yield
        self.show(draw())

    def _wrapped(self, line: Text) -> Iterable[Text]:
        columns = self.console.width - len(QUOTE)
        if not self.console.is_terminal or len(line) <= columns:
            return [line]
        parts = line.wrap(self.console, columns - len(MORE))
        for part in parts:
            part.rstrip()
        return parts

    def _indented(self, text: Text) -> None:
        for line in text.wrap(self.console, self.console.width - INDENT):
            line.rstrip()
            self.console.print(Text(" " * INDENT) + line)


def make_console(stream: TextIO, environ: Mapping[str, str] = os.environ) -> Console:
    """Builds a console of the terminal's width, of COLUMNS, or of `PIPE_COLUMNS` in a pipe."""
    wide = None if stream.isatty() or environ.get("COLUMNS") else PIPE_COLUMNS
    return Console(file=stream, width=wide, highlight=False, emoji=False, _environ=dict(environ))
