"""Hardware that plays a recording instead of calling a driver, for demonstrations and analysis."""

import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gpufleet_agent.devices.base import DeviceEvent, DeviceInfo, Reading, SlowReading, UnknownDeviceError
from gpufleet_agent.devices.recording.format import Entry, Failure, Recording, RecordingError, parse

T = TypeVar("T", Reading, SlowReading)

_POLL_SECONDS = 0.05
"""How often to check whether an event is due."""


class RecordingPlayer:
    """Implements `Hardware` and `EventSource`. Plays from the first `open` on, in a loop.

    Args:
        recording: Is played.
        clock: Returns monotonic seconds.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._recording = recording
        self._seconds = recording.seconds
        self._devices = recording.devices()
        self._clock = clock
        self._sleep = sleep
        self._began: float | None = None
        self._listed: dict[str, DeviceInfo] = {}  # replaced, never changed: other devices' threads read it
        self._tracks = {info.uuid: _Track(recording, info.uuid) for info in self._devices}
        self._everything = _Track(recording, None)
        self._events = [(one.at, one.content) for one in recording.entries if isinstance(one.content, DeviceEvent)]
        self._reported = 0
        """Number of events reported, over all repetitions."""

    def open(self) -> None:
        self._listed = {}
        if self._began is None:
            self._began = self._clock()
        self._check_available()

    def close(self) -> None:
        self._listed = {}

    def driver_version(self) -> str | None:
        return self._recording.driver_version

    def device_count(self) -> int:
        self._check_available()
        return len(self._devices)

    def identify(self, index: int) -> str:
        self._check_available()
        info = self._devices[index]
        self._raise_failure(info.uuid)
        self._listed = {**self._listed, info.uuid: info}
        return info.uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        return tuple(info for info in self._devices if info.uuid in self._listed)

    def read(self, uuid: str) -> Reading:
        return self._read(uuid, Reading) or Reading(uuid=uuid)

    def read_slow(self, uuid: str) -> SlowReading:
        return self._read(uuid, SlowReading) or SlowReading(uuid=uuid)

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        end = self._clock() + timeout_seconds
        while True:
            self._check_available()
            if (event := self._next_event()) is not None:
                return event
            left = end - self._clock()
            if left <= 0:
                return None
            self._sleep(min(left, _POLL_SECONDS))

    def _read(self, uuid: str, kind: type[T]) -> T | None:
        if uuid not in self._listed:
            raise UnknownDeviceError(uuid, "no such device in the recording, or not identified")
        self._check_available()
        self._raise_failure(uuid)
        return self._tracks[uuid].last(kind, self._position)

    @property
    def _played(self) -> float:
        return 0.0 if self._began is None else self._clock() - self._began

    @property
    def _position(self) -> float:
        return self._played % self._seconds

    def _check_available(self) -> None:
        newest = self._everything.newest(self._position)
        if isinstance(newest, Failure) and newest.uuid is None:
            raise newest.error()

    def _raise_failure(self, uuid: str) -> None:
        newest = self._tracks[uuid].newest(self._position)
        if isinstance(newest, Failure):
            raise newest.error()

    def _next_event(self) -> DeviceEvent | None:
        """Returns the next event that is due; None if there is none. Each repetition reports its events again."""
        if not self._events:
            return None
        repetition, index = divmod(self._reported, len(self._events))
        if repetition * self._seconds + self._events[index][0] > self._played:
            return None
        self._reported += 1
        return self._events[index][1]


class _Track:
    """The lines about one device; all lines if `uuid` is None."""

    def __init__(self, recording: Recording, uuid: str | None) -> None:
        mine = [one for one in recording.entries if uuid is None or one.content.uuid == uuid]
        self._all = [one for one in mine if not isinstance(one.content, DeviceEvent | DeviceInfo)]
        self._of = {kind: [one for one in mine if isinstance(one.content, kind)] for kind in (Reading, SlowReading)}

    def newest(self, position: float) -> object:
        """Returns the last reading or failure at that position; None before the first."""
        count = bisect_right(self._all, position, key=_at)
        return self._all[count - 1].content if count else None

    def last(self, kind: type[T], position: float) -> T | None:
        """Returns the last reading at that position; before the first one, the first."""
        entries = self._of[kind]
        content = entries[max(0, bisect_right(entries, position, key=_at) - 1)].content if entries else None
        return content if isinstance(content, kind) else None


def _at(entry: Entry) -> float:
    return entry.at


def load(path: Path) -> RecordingPlayer:
    """Returns hardware that plays a file.

    Raises:
        OSError: The file cannot be read.
        RecordingError: It is not a recording.
    """
    with path.open("rb") as lines:
        try:
            return RecordingPlayer(parse(lines))
        except RecordingError as error:
            raise RecordingError(f"{path}: {error}") from error
