"""The narrator: numbered steps, progress lines and tables on a terminal, and the same as plain lines in a pipe.

rich leaves out colours and control codes when the output is no terminal or NO_COLOR is set, and draws boxes in ASCII
when the encoding has nothing else. What is ours: a sensible width for pipes, a live table only where one can be
redrawn, and the time that each step took.
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
"""Width of a page when nobody says how wide it is."""

INDENT = 2
QUOTE = "  | "
MORE = "  "


@dataclass(frozen=True, slots=True)
class StepTime:
    """How long one step took."""

    title: str
    seconds: float


class Terminal:
    """Prints the story. `clock` gives seconds that only ever grow."""

    def __init__(self, console: Console, steps: int, clock: Callable[[], float] = monotonic) -> None:
        self.console = console
        self._steps = steps
        self._clock = clock
        self._begin = clock()
        self._times: list[StepTime] = []
        self._open: tuple[str, float] | None = None

    def step(self, title: str, why: str) -> None:
        """Begin the next numbered step: what happens, and why it matters."""
        self.finish()
        self._open = (title, self._clock())
        number = f"[{len(self._times) + 1}/{self._steps}]"
        self.console.print()
        self.console.print(Text.assemble((number, "bold cyan"), " ", (title, "bold")))
        self._indented(Text(why, "italic"))

    def finish(self) -> None:
        """End the step that is open, if any, and keep its time."""
        if self._open:
            title, begin = self._open
            self._times.append(StepTime(title, self._clock() - begin))
            self._open = None

    @property
    def times(self) -> tuple[StepTime, ...]:
        """The steps that have ended."""
        return tuple(self._times)

    @property
    def total_seconds(self) -> float:
        """Since the story began."""
        return self._clock() - self._begin

    def say(self, text: str) -> None:
        """One line of the story; rich markup is not read in it."""
        self._indented(Text(text))

    def progress(self, text: str) -> None:
        """One line of progress with the seconds since the step began."""
        seconds = self._clock() - self._open[1] if self._open else 0.0
        self._indented(Text.assemble((f"{seconds:6.1f} s  ", "dim"), text))

    def command(self, text: str) -> None:
        """What the reader could type to do or see the same."""
        self._indented(Text.assemble(("$ ", "dim"), (text, "green")))

    def good(self, text: str) -> None:
        """A check that holds."""
        self._indented(Text.assemble(("ok  ", "bold green"), text))

    def bad(self, text: str) -> None:
        """A check that doesn't hold."""
        self._indented(Text.assemble(("NO  ", "bold red"), text))

    def quote(self, text: str) -> None:
        """Somebody's own words, such as kubectl's output: whole lines in a pipe, wrapped ones on a terminal."""
        for line in text.rstrip().splitlines():
            for number, part in enumerate(self._wrapped(Text(line))):
                lead = QUOTE + MORE if number else QUOTE
                self.console.print(Text(lead) + part, no_wrap=True, overflow="ignore", crop=False)

    def show(self, *parts: RenderableType) -> None:
        """Tables."""
        self.console.print(Padding.indent(Group(*parts), INDENT))

    @contextmanager
    def live(self, draw: Callable[[], RenderableType]) -> Iterator[None]:
        """Print what `draw` returns when the block is done; on a terminal also show it twice a second meanwhile.

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
    """A console for this stream: the terminal's own width, or COLUMNS, or `PIPE_COLUMNS` in a pipe."""
    wide = None if stream.isatty() or environ.get("COLUMNS") else PIPE_COLUMNS
    return Console(file=stream, width=wide, highlight=False, emoji=False, _environ=dict(environ))
