"""Keeps the file equal to what the agent knows, and hands over what it said at the start.

The file system may be full, read-only, or hang. None of that may cost more than the memory of a fault: it is logged
once, counted, and tried again; all of it happens in a thread of its own, and nobody waits for it for long.
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
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.driver_thread import DriverThread
from gpufleet_agent.sampling.saved_state import Checkpoint

log = structlog.get_logger(__name__)

LOOK_SECONDS = 10.0
"""How often what nobody tells of is looked at: that a fault came again, and that the file is still there."""
PATIENCE_SECONDS = 3.0
CLOSE_SECONDS = 1.5
"""Less than a part may take to close."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What reading came to."""

    kept: NodeCheckpoint | None = None
    problem: str = ""
    aside: Path | None = None


@dataclass(frozen=True, slots=True)
class _Write:
    done: asyncio.Future[None]
    document: Document


class CheckpointState(Protocol):
    """Has the state that a checkpoint saves."""

    def collect(self) -> Checkpoint | None:
        """Returns what to save now; None if that is not known yet, and the file must stay as it is."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Called once with what the file holds, if it is about this boot of the node."""


class CheckpointWriter:
    """The checkpoint of one agent. Make it, `start` it, let it `run`, and `close` it, all in one event loop.

    Args:
        directory: Where the file is.
        node: Name of the node.
        boot_id: Of the node, now.
        state: Is saved, and restored from the file at the start.
        changes: Notified when a fault came or went.
        counters: Where writes, and files that make no sense, are counted.
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
        look_seconds: float = LOOK_SECONDS,
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
        self._look_seconds = look_seconds
        self._pace = SlidingWindowLimiter()
        self._worker: DriverThread | None = None
        self._reading: asyncio.Future[_Found] | None = None
        self._write: _Write | None = None
        self._substance: Document | None = None
        """Of the file as it is on the disk; None: not known, or of no use."""
        self._essence: Document | None = None
        self._written = 0.0
        """When the file says that it was written, in seconds since the epoch."""
        self._look: asyncio.Future[bool] | None = None
        self._looked = 0.0
        self._problem = ""

    async def start(self) -> None:
        """Read the file, and have it taken over. A file system that doesn't answer is waited for no longer than 3 s."""
        self._worker = DriverThread("checkpoint")
        self._reading = self._worker.submit(self._read)
        self._reading.add_done_callback(self._have_read)
        try:
            await asyncio.wait({self._reading}, timeout=self._patience_seconds)
        except BaseException:  # cancelled: nobody will close what did not start
            self._worker.stop()
            raise
        if self._reading is not None:
            self._fail("the file system doesn't answer; what it remembers of faults is not known yet")

    async def run(self, beat: Callable[[], None]) -> None:
        """Write when there is something to keep, for ever; calls `beat` each time round."""
        loop = asyncio.get_running_loop()
        while True:
            beat()
            seen = self._changes.version
            due = await self._step(loop.time())
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changes.wait(seen)

    async def close(self) -> None:
        """Keep what is known at the end. Cancelled or not, what is being written is written to its end."""
        if self._worker is None:
            return
        deadline = asyncio.get_running_loop().time() + CLOSE_SECONDS
        try:
            if self._write is not None:
                # It may be of a moment before the last fault.
                await asyncio.wait({self._write.done}, timeout=CLOSE_SECONDS)
            document = self._document()
            if document is not None and self._write is None and significant_part(document) != self._substance:
                self._begin(document)
        finally:
            stopped = self._worker.stop()
        await asyncio.wait({stopped}, timeout=deadline - asyncio.get_running_loop().time())
        if self._write is not None:
            self._fail("the file system doesn't answer: what it remembers may be old")

    async def _step(self, now: float) -> float:
        """Write if it is due; returns when to come again at the latest, in seconds of the loop's clock."""
        later = now + self._look_seconds
        if self._reading is not None or self._write is not None:
            return later  # what was asked of the file system first comes first
        document = self._document()
        if document is None:
            return later
        # Once the clock was set back, a time that lies ahead would make the file look newer than statuses to come.
        if significant_part(document) == self._substance and self._written <= document["written"]:
            await self._look_after(now)
            return later
        urgent = urgent_part(document) != self._essence
        due = self._pace.due(urgent=urgent)
        if due > now:
            return min(due, later)
        self._pace.wrote(now, urgent=urgent)
        write = self._begin(document)
        await asyncio.wait({write.done}, timeout=self._patience_seconds)
        if not write.done.done():
            self._fail("the file system doesn't answer")
        return later

    def _document(self) -> Document | None:
        checkpoint = self._state.collect() if self._reading is None else None
        if checkpoint is None:
            return None
        document = encode(NodeCheckpoint(checkpoint, self._node, self._boot_id))
        if self._substance is None and not document["devices"] and not document["acknowledged"]:
            return None  # a node without devices keeps no file
        return document

    def _begin(self, document: Document) -> _Write:
        assert self._worker is not None  # noqa: S101 - set by start
        content = to_bytes(document)
        done = self._worker.submit(lambda: self._file.write(content))
        self._write = _Write(done, document)
        done.add_done_callback(self._wrote)
        return self._write

    def _wrote(self, done: asyncio.Future[None]) -> None:
        write, self._write = self._write, None
        if write is None or done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._counters.checkpoint_writes.labels("Failed").inc()
            self._pace.failed(asyncio.get_running_loop().time())
            self._fail(str(error))
            return
        self._counters.checkpoint_writes.labels("Written").inc()
        self._have_on_disk(write.document)
        self._looked = asyncio.get_running_loop().time()
        self._well()

    async def _look_after(self, now: float) -> None:
        """See that nobody has replaced the file or taken it away; then it is written again."""
        if self._worker is None or (self._look is not None and not self._look.done()):
            return
        self._well()
        if now < self._looked + self._look_seconds:
            return
        self._looked = now
        look = self._look = self._worker.submit(self._file.is_as_written)
        await asyncio.wait({look}, timeout=self._patience_seconds)
        if not look.done():
            self._fail("the file system doesn't answer")
        elif look.exception() is not None or not look.result():
            log.warning(
                "the file with the faults was changed by somebody else: written anew", path=str(self._file.path)
            )
            self._substance = self._essence = None

    def _read(self) -> _Found:
        try:
            content = self._file.read()
            kept = None if content is None else decode(content)
            if kept is not None and kept.node != self._node:
                raise CheckpointError(f"it is node {kept.node}'s: does it share the directory with this one?")
            return _Found(kept)
        except (CheckpointError, OSError) as error:
            # Also one that the disk just doesn't give: it would be written over.
            try:
                return _Found(None, str(error), self._file.set_aside())
            except OSError as obstacle:
                return _Found(None, f"{error}; and it can't be set aside: {obstacle}")

    def _have_read(self, reading: asyncio.Future[_Found]) -> None:
        self._reading = None
        if reading.cancelled():
            return
        found, path = reading.result(), str(self._file.path)
        self._well()  # it answers, if late
        if found.problem:
            self._counters.decode_errors.labels("Checkpoint").inc()
            aside = None if found.aside is None else str(found.aside)
            log.warning("the file with the faults can't be read", path=path, reason=found.problem, set_aside=aside)
        if found.kept is None:
            return
        kept = found.kept
        if self._boot_id is not None and kept.boot_id not in {None, self._boot_id}:
            log.info("the file with the faults is of another boot of the node: ignored", path=path)
            return
        self._have_on_disk(encode(kept))
        self._state.restore(kept.checkpoint)

    def _have_on_disk(self, document: Document) -> None:
        self._substance, self._essence = significant_part(document), urgent_part(document)
        self._written = document["written"]

    def _fail(self, problem: str) -> None:
        self._current.set(0)
        if problem != self._problem:
            log.error("faults are not kept on this node", path=str(self._file.path), error=problem)
        self._problem = problem

    def _well(self) -> None:
        self._current.set(1)
        if self._problem:
            log.info("faults are kept on this node again", path=str(self._file.path))
        self._problem = ""
