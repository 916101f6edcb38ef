"""Progress lines of the test bed: one line per step, with the seconds that it took."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

_LIVE_SECONDS = 1.0
_LOG_SECONDS = 30.0


@dataclass(eq=False)
class _Step:
    text: str | Callable[[], str]
    start: float

    def line(self, now: float, ending: str = "") -> str:
        text = self.text if isinstance(self.text, str) else self.text()
        return f"{now - self.start:6.1f} s  {text}{ending}"


class Progress:
    """Prints steps to a stream; steps of several threads may overlap.

    On a terminal the line of the running steps is rewritten each second. Elsewhere, as in a log, a long step gets a
    line every 30 s, so that it does not look hung.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = self._stream.isatty()
        self._lock = threading.Lock()
        self._running: list[_Step] = []
        self._shown = ""

    def say(self, text: str) -> None:
        """Prints one line."""
        with self._lock:
            self._print(text)

    @contextmanager
    def step(self, text: str | Callable[[], str], done: str | None = None) -> Iterator[None]:
        """Shows a step while the block runs, and its duration when it ends.

        Args:
            text: What is being done; a function is called each time the line is printed, also from another thread.
            done: The text of the last line, when it differs from `text`.
        """
        step = _Step(text, self._clock())
        with self._lock:
            self._running.append(step)
            self._redraw()
        over = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(step, over), daemon=True)
        ticker.start()
        ending = " failed"
        try:
            yield
            ending = ""
            step.text = done or step.text
        finally:
            over.set()
            ticker.join()
            with self._lock:
                self._running.remove(step)
            self.say(step.line(self._clock(), ending))

    def _tick(self, step: _Step, over: threading.Event) -> None:
        while not over.wait(_LIVE_SECONDS if self._live else _LOG_SECONDS):
            with self._lock:
                if self._live:
                    self._redraw()
                else:
                    self._print(step.line(self._clock(), " ..."))

    def _print(self, text: str) -> None:
        self._erase()
        self._stream.write(f"{text}\n")
        self._redraw()
        self._stream.flush()

    def _redraw(self) -> None:
        if not self._live:
            return
        self._erase()
        if self._running:
            line = " | ".join(step.line(self._clock(), " ...").strip() for step in self._running)
            self._shown = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write(self._shown)
        self._stream.flush()

    def _erase(self) -> None:
        if self._shown:
            self._stream.write("\r" + " " * len(self._shown) + "\r")
            self._shown = ""
