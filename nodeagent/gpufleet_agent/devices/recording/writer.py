"""Hardware that records the answers of other hardware into a file."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    DeviceNodeUser,
    EventSource,
    Hardware,
    HardwareError,
    Reading,
    SlowReading,
)
from gpufleet_agent.devices.recording.format import Content, Entry, Failure, failure_of, render, render_header

T = TypeVar("T")

log = structlog.get_logger(__name__)


class RecordingWriter:
    """Implements `Hardware` and `EventSource`; forwards calls, and records the answers that changed.

    A write error, or reaching the maximum size, ends the recording and nothing else. The file stays playable.

    Args:
        hardware: Receives the calls.
        path: The file; an existing one is replaced.
        max_bytes: Maximum size; the file never ends within a line.
        clock: Returns monotonic seconds.

    Raises:
        OSError: The file cannot be created.
    """

    def __init__(
        self, hardware: Hardware, path: Path, *, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hardware = hardware
        path.write_bytes(b"")
        self._path = path
        self._file: BinaryIO | None = None
        self._max_bytes = max_bytes
        self._written_bytes = 0
        self._ended = False
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._last: dict[tuple[str | None, type[Content]], Content] = {}

    def open(self) -> None:
        with self._lock:
            if self._file is None and not self._ended:
                self._file = self._path.open("ab", buffering=0)
        self._call(self._hardware.open)

    def close(self) -> None:
        self._hardware.close()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def driver_version(self) -> str | None:
        version = self._call(self._hardware.driver_version)
        with self._lock:
            self._start(version)
        return version

    def device_count(self) -> int:
        return self._call(self._hardware.device_count)

    def identify(self, index: int) -> str:
        # This device may become a peer of the others, which changes their descriptions.
        uuid = self._call(lambda: self._hardware.identify(index))
        for info in self._hardware.devices():
            self._record(info)
        return uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        return self._hardware.devices()

    def read(self, uuid: str) -> Reading:
        reading = self._call(lambda: self._hardware.read(uuid))
        self._record(reading)
        return reading

    def read_slow(self, uuid: str) -> SlowReading:
        reading = self._call(lambda: self._hardware.read_slow(uuid))
        self._record(reading)
        return reading

    def lost_nodes(self) -> tuple[str, ...] | None:
        return self._hardware.lost_nodes() if isinstance(self._hardware, DeviceNodeUser) else None

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        source = self._hardware
        if not isinstance(source, EventSource):
            time.sleep(timeout_seconds)
            return None
        event = self._call(lambda: source.wait_event(timeout_seconds))
        if event is not None:
            self._record(event)
        return event

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except HardwareError as error:
            failure = failure_of(error)
            if failure is not None:
                self._record(failure)
            raise

    def _record(self, content: Content) -> None:
        with self._lock:
            if isinstance(content, Failure) and not self._describes(content.uuid):
                return  # of a device that was never identified
            key = (content.uuid, type(content))
            if not isinstance(content, DeviceEvent) and self._last.get(key) == content:
                return
            self._forget(content)
            self._last[key] = content
            self._start(None)
            began = self._began or 0.0
            self._write(render(Entry(max(0.0, self._clock() - began), content)))

    def _forget(self, content: Content) -> None:
        """Forgets answers whose validity this line ends: if they come again, they must be recorded again."""
        if isinstance(content, DeviceInfo | DeviceEvent):
            return
        uuid = content.uuid
        ended: set[tuple[str | None, type[Content]]] = {(uuid, Failure), (None, Failure)}
        if isinstance(content, Failure):
            ended |= {key for key in self._last if key[1] is not DeviceInfo and uuid in (None, key[0])}
        for key in ended:
            self._last.pop(key, None)

    def _describes(self, uuid: str | None) -> bool:
        return uuid is None or (uuid, DeviceInfo) in self._last

    def _start(self, driver_version: str | None) -> None:
        if self._began is None:
            self._began = self._clock()
            self._write(render_header(driver_version))

    def _write(self, line: bytes) -> None:
        if self._file is None:
            return
        self._written_bytes += len(line)
        if self._written_bytes > self._max_bytes:
            log.warning("recording ended, maximum size reached", max_bytes=self._max_bytes)
        else:
            try:
                if self._file.write(line) == len(line):
                    return
                # A full disk accepts a part of the line first, and a recording with half a line cannot be played.
                self._file.truncate(self._written_bytes - len(line))
                log.error("recording ended", error="disk full")
            except OSError as error:
                log.error("recording ended", error=str(error))  # noqa: TRY400 - the error says all
        self._file.close()
        self._file, self._ended = None, True
