"""Age of the telemetry in a fleet file. A saved fleet is always old, so its age counts only on request."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from gpufleet_api.names import STALE_AFTER_SECONDS
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_cli.errors import InputError
from gpufleet_cli.freshness import Renewals
from gpufleet_cli.input.documents import Document
from gpufleet_common import timestamps
from gpufleet_operator.cache.decode import written_at


@dataclass(frozen=True, slots=True)
class AgePolicy:
    """With `now` None, each node is taken as of the last report of its agent."""

    now: datetime | None = None
    stale_after_seconds: float = STALE_AFTER_SECONDS

    @classmethod
    def parse(cls, now: str | None, stale_after_seconds: float | None, clock: datetime) -> "AgePolicy":
        """Returns the policy for `--now` and `--stale-after`. Either option makes the age count.

        Args:
            now: An RFC 3339 time; `clock` when absent.
            stale_after_seconds: The operator's default when absent.
            clock: The current time.

        Raises:
            InputError: `now` is not a time.
        """
        if now is None and stale_after_seconds is None:
            return cls()
        try:
            moment = clock if now is None else timestamps.parse(now)
        except ValueError:
            raise InputError(f"--now {now}: must be an RFC 3339 time, such as 2026-01-02T03:04:05Z") from None
        return cls(moment, STALE_AFTER_SECONDS if stale_after_seconds is None else stale_after_seconds)

    def age_seconds(self, document: Document, telemetry: GPUTelemetry, renewals: Renewals) -> float:
        """Returns the seconds since the agent last wrote the status, or renewed a Lease that confirms it.

        The time of a write is the apiserver's, if the file has it, else the agent's own.
        """
        if self.now is None or telemetry.status is None:
            return 0.0
        try:
            written = written_at(document.body["metadata"]) or timestamps.parse(telemetry.status.observed_at)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{document}: metadata.managedFields: cannot be decoded: {error}") from error
        return renewals.age_seconds(document.body, written, self.now)

    def notes(self) -> Iterator[str]:
        """Yields a note when the age does not count."""
        if self.now is None:
            yield "telemetry age ignored: each node is taken as of its last report (see --now and --stale-after)"
