"""A fleet played from a recording, in place of a driver: for demonstrations, and to look again at what happened."""

import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gpufleet_agent.devices.base import DeviceEvent, DeviceInfo, Reading, SlowReading, UnknownDeviceError
from gpufleet_agent.devices.recording.format import Entry, Failure, Recording, parse

T = TypeVar("T", Reading, SlowReading)

_GLANCE = 0.05
"""How often to look whether an event is due, in seconds."""


class RecordingPlayer:
    """A `Hardware` and an `EventSource`. Plays from the first `open` on, over later ones, and from the front again.

    Args:
        recording: What is played.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
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
        self._slots = recording.devices()
        self._clock = clock
        self._sleep = sleep
        self._began: float | None = None
        self._listed: dict[str, DeviceInfo] = {}  # replaced, never changed: threads of other devices look at it
        self._tracks = {info.uuid: _Track(recording, info.uuid) for info in self._slots}
        self._everything = _Track(recording, None)
        self._events = [(one.at, one.content) for one in recording.entries if isinstance(one.content, DeviceEvent)]
        self._told = 0
        """How many events were told, over all rounds."""

    def open(self) -> None:
        """See `Hardware.open`."""
        self._listed = {}
        if self._began is None:
            self._began = self._clock()
        self._check_available()

    def close(self) -> None:
        """See `Hardware.close`."""
        self._listed = {}

    def driver_version(self) -> str | None:
        """See `Hardware.driver_version`."""
        return self._recording.driver_version

    def device_count(self) -> int:
        """See `Hardware.device_count`."""
        self._check_available()
        return len(self._slots)

    def identify(self, slot: int) -> str:
        """See `Hardware.identify`."""
        self._check_available()
        info = self._slots[slot]
        self._raise_failure(info.uuid)
        self._listed = {**self._listed, info.uuid: info}
        return info.uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        """See `Hardware.devices`."""
        return tuple(info for info in self._slots if info.uuid in self._listed)

    def read(self, uuid: str) -> Reading:
        """See `Hardware.read`."""
        return self._read(uuid, Reading) or Reading(uuid=uuid)

    def read_slow(self, uuid: str) -> SlowReading:
        """See `Hardware.read_slow`."""
        return self._read(uuid, SlowReading) or SlowReading(uuid=uuid)

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        """See `EventSource.wait_event`."""
        end = self._clock() + timeout_seconds
        while True:
            self._check_available()
            if (event := self._next_event()) is not None:
                return event
            left = end - self._clock()
            if left <= 0:
                return None
            self._sleep(min(left, _GLANCE))

    def _read(self, uuid: str, kind: type[T]) -> T | None:
        if uuid not in self._listed:
            raise UnknownDeviceError(uuid, "the recording has no such device, or it was not asked who it is")
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
        """The first event that wasn't told yet, as far as it was played. Each round tells its events again."""
        if not self._events:
            return None
        round_, place = divmod(self._told, len(self._events))
        if round_ * self._seconds + self._events[place][0] > self._played:
            return None
        self._told += 1
        return self._events[place][1]


class _Track:
    """What a recording says of one device; of `None`: everything."""

    def __init__(self, recording: Recording, uuid: str | None) -> None:
        mine = [one for one in recording.entries if uuid is None or one.content.uuid == uuid]
        self._all = [one for one in mine if not isinstance(one.content, DeviceEvent | DeviceInfo)]
        self._of = {kind: [one for one in mine if isinstance(one.content, kind)] for kind in (Reading, SlowReading)}

    def newest(self, position: float) -> object:
        """The last that was said by then, readings and failures alike; None before the first."""
        place = bisect_right(self._all, position, key=_at)
        return self._all[place - 1].content if place else None

    def last(self, kind: type[T], position: float) -> T | None:
        """The last reading by then; before the first, the first."""
        entries = self._of[kind]
        content = entries[max(0, bisect_right(entries, position, key=_at) - 1)].content if entries else None
        return content if isinstance(content, kind) else None


def _at(entry: Entry) -> float:
    return entry.at


def load(path: Path) -> RecordingPlayer:
    """The hardware that a file plays.

    Raises:
        OSError: It can't be read.
        RecordingError: It is no recording.
    """
    with path.open("rb") as lines:
        return RecordingPlayer(parse(lines))
