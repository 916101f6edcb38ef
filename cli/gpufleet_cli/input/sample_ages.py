"""How old telemetry of a file counts as. A saved fleet is old by nature, so its age is ignored unless asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from gpufleet_api.telemetry import GPUTelemetry
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.documents import Document
from gpufleet_common import timestamps
from gpufleet_operator.cache.decode import written_at

STALE_AFTER = 90.0
"""Seconds; the operator's default."""


@dataclass(frozen=True, slots=True)
class Ages:
    """`now` None: each node is taken as of the moment when its agent wrote its status."""

    now: datetime | None = None
    limit: float = STALE_AFTER
    """Seconds after which telemetry isn't used."""

    @classmethod
    def parse(cls, now: str | None, stale_after: float | None, clock: datetime) -> "Ages":
        """From `--now` and `--stale-after`; either one switches the test on.

        Args:
            now: RFC 3339; `clock` when absent.
            stale_after: seconds.
            clock: the time that it is.

        Raises:
            InputError: not a time.
        """
        if now is None and stale_after is None:
            return cls()
        try:
            moment = clock if now is None else timestamps.parse(now)
        except ValueError:
            raise InputError(f"--now {now}: must be a time such as 2026-01-02T03:04:05Z") from None
        return cls(moment, STALE_AFTER if stale_after is None else stale_after)

    def of(self, document: Document, telemetry: GPUTelemetry) -> float:
        """Seconds since the agent's last status write: by the apiserver's time of it, or else by the agent's own."""
        if self.now is None or telemetry.status is None:
            return 0.0
        try:
            written = written_at(document.body["metadata"]) or timestamps.parse(telemetry.status.observed_at)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{document}: metadata.managedFields: can't be read: {error}") from error
        return max(0.0, (self.now - written).total_seconds())

    def notes(self) -> Iterator[str]:
        """What to tell the user."""
        if self.now is None:
            yield "the age of the file is ignored: each node is taken as of its last report (see --now, --stale-after)"
