"""Keeps the fault file up to date, and restores its content at the start.

The file system may be full, read-only, or hang. At worst a fault is then not saved: failures are logged once, counted
and retried. All file operations run in a separate thread, and waits for it are short.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from gpufleet_agent.faults.file.format import (
    CheckpointError,
    Document,
    NodeCheckpoint,
    decode,
    encode,
    significant_part,
    to_bytes,
    urgent_part,
)
from gpufleet_agent.faults.file.rate_limit import SlidingWindowLimiter
from gpufleet_agent.faults.file.store import CheckpointFile
from gpufleet_agent.runtime.driver_thread import DriverThread
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.saved_state import Checkpoint

log = structlog.get_logger(__name__)

CHECK_SECONDS = 10.0
"""How often changes without a signal are checked: a fault that occurred again, a file that was removed."""
PATIENCE_SECONDS = 3.0
"""How long to wait for the file system before it counts as failed."""
CLOSE_SECONDS = 1.5
"""Less than the time limit for closing a component."""


@dataclass(frozen=True, slots=True)
class _ReadResult:
    content: NodeCheckpoint | None = None
    problem: str = ""
    moved_to: Path | None = None


@dataclass(frozen=True, slots=True)
class _Write:
    done: asyncio.Future[None]
    document: Document


class CheckpointState(Protocol):
    """Source and destination of the saved state."""

    def collect(self) -> Checkpoint | None:
        """Returns the state to save now; None: not known yet, and the file must not be changed."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Called once with the content of the file, if it is of this boot of the node."""


class CheckpointWriter:
    """Reads and writes the fault file. Call `start`, `run` and `close` in one event loop.

    Args:
        directory: Directory of the file.
        node: Name of the node.
        boot_id: The node's boot ID; None: unknown.
        state: Provides the state to save, and restores it.
        changes: Notified when a fault begins or ends.
        counters: Counts writes and unreadable files.
        patience_seconds: How long to wait for the file system.
        check_seconds: How often to check for changes without a signal.
    """

    def __init__(
        self,
        directory: Path,
        *,
        node: str,
        boot_id: str | None,
        state: CheckpointState,
        changes: VersionSignal,
        counters: Instruments,
        patience_seconds: float = PATIENCE_SECONDS,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._file = CheckpointFile(directory)
        self._node = node
        self._boot_id = boot_id
        self._state = state
        self._changes = changes
        self._counters = counters
        self._current = counters.checkpoint_current.labels(str(self._file.path))
        self._current.set(1)
        self._patience_seconds = patience_seconds
        self._check_seconds = check_seconds
        self._limiter = SlidingWindowLimiter()
        self._worker: DriverThread | None = None
        self._reading: asyncio.Future[_ReadResult] | None = None
        self._write: _Write | None = None
        self._stored: Document | None = None
        """Significant part of the file on the disk; None: unknown, or not usable."""
        self._stored_urgent: Document | None = None
        self._stored_at = 0.0
        """Time of writing in the file, in seconds since the epoch."""
        self._check: asyncio.Future[bool] | None = None
        self._checked_at = 0.0
        self._problem = ""

    async def start(self) -> None:
        """Reads the file and restores its content. Waits at most 3 s for the file system."""
        self._worker = DriverThread("checkpoint")
        self._reading = self._worker.submit(self._read)
        self._reading.add_done_callback(self._finish_read)
        try:
            await asyncio.wait({self._reading}, timeout=self._patience_seconds)
        except BaseException:  # also when cancelled: what did not start is not closed by the caller
            self._worker.stop()
            raise
        if self._reading is not None:
            self._fail("the file system does not respond, saved faults not restored yet")

    async def run(self, beat: Callable[[], None]) -> None:
        """Writes the file whenever needed, without end; calls `beat` in each iteration."""
        loop = asyncio.get_running_loop()
        while True:
            beat()
            seen = self._changes.version
            due = await self._step(loop.time())
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changes.wait(seen)

    async def close(self) -> None:
        """Writes the final state. A running write is completed, even if the caller is cancelled."""
        if self._worker is None:
            return
        deadline = asyncio.get_running_loop().time() + CLOSE_SECONDS
        try:
            if self._write is not None:
                # It may have begun before the last fault.
                await asyncio.wait({self._write.done}, timeout=CLOSE_SECONDS)
            document = self._document()
            if document is not None and self._write is None and significant_part(document) != self._stored:
                self._begin(document)
        finally:
            stopped = self._worker.stop()
        await asyncio.wait({stopped}, timeout=deadline - asyncio.get_running_loop().time())
        if self._write is not None:
            self._fail("the file system does not respond, the checkpoint may be outdated")

    async def _step(self, now: float) -> float:
        """Writes if it is due; returns when to call this again at the latest, in seconds of the loop's clock."""
        later = now + self._check_seconds
        if self._reading is not None or self._write is not None:
            return later  # one file operation at a time
        document = self._document()
        if document is None:
            return later
        # After the clock was set back, a future time in the file would make it look newer than the next statuses.
        if significant_part(document) == self._stored and self._stored_at <= document["written"]:
            await self._check_file(now)
            return later
        urgent = urgent_part(document) != self._stored_urgent
        due = self._limiter.due(urgent=urgent)
        if due > now:
            return min(due, later)
        self._limiter.started(now, urgent=urgent)
        write = self._begin(document)
        await asyncio.wait({write.done}, timeout=self._patience_seconds)
        if not write.done.done():
            self._fail("the file system does not respond")
        return later

    def _document(self) -> Document | None:
        checkpoint = self._state.collect() if self._reading is None else None
        if checkpoint is None:
            return None
        document = encode(NodeCheckpoint(checkpoint, self._node, self._boot_id))
        if self._stored is None and not document["devices"] and not document["acknowledged"]:
            return None  # a node without devices needs no file
        return document

    def _begin(self, document: Document) -> _Write:
        assert self._worker is not None  # noqa: S101 - set by start
        content = to_bytes(document)
        done = self._worker.submit(lambda: self._file.write(content))
        self._write = _Write(done, document)
        done.add_done_callback(self._finish_write)
        return self._write

    def _finish_write(self, done: asyncio.Future[None]) -> None:
        write, self._write = self._write, None
        if write is None or done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._counters.checkpoint_writes.labels("Failed").inc()
            self._limiter.failed(asyncio.get_running_loop().time())
            self._fail(str(error))
            return
        self._counters.checkpoint_writes.labels("Written").inc()
        self._set_stored(write.document)
        self._checked_at = asyncio.get_running_loop().time()
        self._succeed()

    async def _check_file(self, now: float) -> None:
        """Checks that the file is the one that was written. If not, it is written again."""
        if self._worker is None or (self._check is not None and not self._check.done()):
            return
        self._succeed()
        if now < self._checked_at + self._check_seconds:
            return
        self._checked_at = now
        check = self._check = self._worker.submit(self._file.is_as_written)
        await asyncio.wait({check}, timeout=self._patience_seconds)
        if not check.done():
            self._fail("the file system does not respond")
        elif check.exception() is not None or not check.result():
            log.warning("fault file changed by another process, writing it again", path=str(self._file.path))
            self._stored = self._stored_urgent = None

    def _read(self) -> _ReadResult:
        try:
            content = self._file.read()
            found = None if content is None else decode(content)
            if found is not None and found.node != self._node:
                raise CheckpointError(f"file is of node {found.node}: do both nodes share the directory?")
            return _ReadResult(found)
        except (CheckpointError, OSError) as error:
            # Also a file that the disk does not return, because it would be overwritten.
            try:
                return _ReadResult(None, str(error), self._file.set_aside())
            except OSError as rename_error:
                return _ReadResult(None, f"{error}; renaming failed: {rename_error}")

    def _finish_read(self, reading: asyncio.Future[_ReadResult]) -> None:
        self._reading = None
        if reading.cancelled():
            return
        result, path = reading.result(), str(self._file.path)
        self._succeed()  # the file system responds, even if late
        if result.problem:
            self._counters.decode_errors.labels("Checkpoint").inc()
            moved_to = None if result.moved_to is None else str(result.moved_to)
            log.warning("ignoring unreadable fault file", path=path, reason=result.problem, moved_to=moved_to)
        content = result.content
        if content is None:
            return
        if self._boot_id is not None and content.boot_id not in {None, self._boot_id}:
            log.info("ignoring fault file of another boot", path=path)
            return
        self._set_stored(encode(content))
        self._state.restore(content.checkpoint)

    def _set_stored(self, document: Document) -> None:
        self._stored, self._stored_urgent = significant_part(document), urgent_part(document)
        self._stored_at = document["written"]

    def _fail(self, problem: str) -> None:
        self._current.set(0)
        if problem != self._problem:
            log.error("fault file cannot be written", path=str(self._file.path), error=problem)
        self._problem = problem

    def _succeed(self) -> None:
        self._current.set(1)
        if self._problem:
            log.info("fault file is writable again", path=str(self._file.path))
        self._problem = ""
