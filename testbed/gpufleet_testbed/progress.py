"""What the user sees while the test bed works: one line per step, with the time it took."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_HEARTBEAT = 30.0


class Progress:
    """Prints steps to a stream. On a terminal the running step's line is rewritten each second.

    Elsewhere (a log) a long step gets a line every 30 s, so that nobody takes it for hung.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = self._stream.isatty()
        self._lock = threading.Lock()
        self._shown = ""

    def say(self, text: str) -> None:
        """Print one line."""
        with self._lock:
            self._write(text, end="\n")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show a step while the block runs, and its duration when it is done."""
        start = self._clock()
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(text, start, done), daemon=True)
        ticker.start()
        failed = True
        try:
            yield
            failed = False
        finally:
            done.set()
            ticker.join()
            ending = " failed" if failed else ""
            self.say(f"{self._clock() - start:6.1f} s  {text}{ending}")

    def _tick(self, text: str, start: float, done: threading.Event) -> None:
        interval = 1.0 if self._live else _HEARTBEAT
        if self._live:
            with self._lock:
                self._write(f"          {text} ...", end="")
        while not done.wait(interval):
            with self._lock:
                self._write(f"{self._clock() - start:6.0f} s  {text} ...", end="" if self._live else "\n")

    def _write(self, text: str, end: str) -> None:
        if self._live:
            self._stream.write("\r" + " " * len(self._shown) + "\r")
            self._shown = text if end == "" else ""
        self._stream.write(text + end)
        self._stream.flush()
