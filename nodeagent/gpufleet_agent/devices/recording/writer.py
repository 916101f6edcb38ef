"""Writes what the hardware says into a recording, while it is asked as usual."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    EventSource,
    Hardware,
    HardwareError,
    Reading,
    SlowReading,
)
from gpufleet_agent.devices.recording.format import Content, Entry, Failure, failure_of, render, render_header

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class RecordingWriter:
    """A `Hardware` and an `EventSource` that asks another and takes down the answers that differ from the ones before.

    A file that can't be written to, or that has become as large as it may, ends the recording and nothing else. It
    can be played up to there.

    Args:
        hardware: What is asked.
        path: The file; one that is there is replaced.
        max_bytes: How large it may become; it never ends within a line for that.
        clock: Monotonic seconds.

    Raises:
        OSError: The file can't be made.
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
        """See `Hardware.open`."""
        with self._lock:
            if self._file is None and not self._ended:
                self._file = self._path.open("ab", buffering=0)
        self._ask(self._hardware.open)

    def close(self) -> None:
        """See `Hardware.close`. The recording goes on at the next `open`."""
        self._hardware.close()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def driver_version(self) -> str | None:
        """See `Hardware.driver_version`."""
        version = self._ask(self._hardware.driver_version)
        with self._lock:
            self._start(version)
        return version

    def device_count(self) -> int:
        """See `Hardware.device_count`."""
        return self._ask(self._hardware.device_count)

    def identify(self, slot: int) -> str:
        """See `Hardware.identify`. What is known of the others may change with it: they see this one as a peer."""
        uuid = self._ask(lambda: self._hardware.identify(slot))
        for info in self._hardware.devices():
            self._note(info)
        return uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        """See `Hardware.devices`."""
        return self._hardware.devices()

    def read(self, uuid: str) -> Reading:
        """See `Hardware.read`."""
        reading = self._ask(lambda: self._hardware.read(uuid))
        self._note(reading)
        return reading

    def read_slow(self, uuid: str) -> SlowReading:
        """See `Hardware.read_slow`."""
        reading = self._ask(lambda: self._hardware.read_slow(uuid))
        self._note(reading)
        return reading

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        """See `EventSource.wait_event`."""
        source = self._hardware
        if not isinstance(source, EventSource):
            time.sleep(timeout_seconds)
            return None
        event = self._ask(lambda: source.wait_event(timeout_seconds))
        if event is not None:
            self._note(event)
        return event

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except HardwareError as error:
            failure = failure_of(error)
            if failure is not None:
                self._note(failure)
            raise

    def _note(self, content: Content) -> None:
        with self._lock:
            if isinstance(content, Failure) and not self._describes(content.uuid):
                return  # a device that never said who it is
            key = (content.uuid, type(content))
            if not isinstance(content, DeviceEvent) and self._last.get(key) == content:
                return
            self._forget(content)
            self._last[key] = content
            self._start(None)
            began = self._began or 0.0
            self._write(render(Entry(max(0.0, self._clock() - began), content)))

    def _forget(self, content: Content) -> None:
        """What must be told again should it be said again, as this line ends how long it stands."""
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
            _log.warning("recording ended: it is as large as it may become", max_bytes=self._max_bytes)
        else:
            try:
                if self._file.write(line) == len(line):
                    return
                # A disk that fills up takes a part of it first, and a recording with half a line can't be played.
                self._file.truncate(self._written_bytes - len(line))
                _log.error("recording ended", error="no room for another line")
            except OSError as error:
                _log.error("recording ended", error=str(error))
        self._file.close()
        self._file, self._ended = None, True
