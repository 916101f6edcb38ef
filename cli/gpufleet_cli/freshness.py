"""When an agent's report was last confirmed: by its write, or by a renewal of a Lease that names the report.

An agent at rest renews its Lease instead of writing its report again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gpufleet_api.names import AGENT_LEASE, LEASE_LABEL
from gpufleet_common import timestamps
from gpufleet_operator.model.cluster.agent_writes import confirmed_report, write_times
from gpufleet_operator.model.lenient_json import Json, as_map, maps, text


@dataclass(frozen=True, slots=True)
class Renewals:
    """Renewals of the agents' Leases, by the apiserver's clock."""

    times: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    """Time of the last renewal, by node and by `status.observedAt` of the report that it confirms."""
    readable: bool = True
    """False: the user may not list the Leases."""

    @classmethod
    def of(cls, leases: Iterable[Json], *, readable: bool = True) -> "Renewals":
        """Returns the renewals of the agents' Leases; other Leases are ignored."""
        times: dict[tuple[str, str], datetime] = {}
        for lease in leases:
            meta = as_map(lease.get("metadata"))
            report, moment = confirmed_report(meta), _last_write(meta)
            if as_map(meta.get("labels")).get(LEASE_LABEL) == AGENT_LEASE and moment is not None and all(report):
                times[report] = max(moment, times.get(report, moment))
        return cls(times, readable)

    def age_seconds(self, telemetry: Json, written: datetime, now: datetime) -> float:
        """Returns the seconds since a report was last confirmed.

        If the Leases are not readable, it is 0 while the operator's condition Fresh is True.

        Args:
            telemetry: The GPUTelemetry.
            written: Time of the agent's last status write.
            now: The current time.
        """
        if not self.readable and _is_fresh(telemetry):
            return 0.0
        name = text(as_map(telemetry.get("metadata")).get("name"))
        observed = text(as_map(telemetry.get("status")).get("observedAt"))
        confirmed = max(written, self.times.get((name, observed), written))
        return max(0.0, (now - confirmed).total_seconds())


def written_at(telemetry: Json) -> datetime | None:
    """Returns when the apiserver recorded the agent's last report, by its own clock.

    Without that, as in an edited file, it is `status.observedAt`, by the agent's clock.
    """
    written = _last_write(as_map(telemetry.get("metadata")), "status")
    return written or time_of(as_map(telemetry.get("status")).get("observedAt"))


def time_of(value: object) -> datetime | None:
    """Returns an RFC 3339 time; None when it is missing or malformed."""
    try:
        return timestamps.parse(text(value))
    except ValueError:
        return None


def _last_write(meta: Json, subresource: str | None = None) -> datetime | None:
    """Returns the time of the agent's last write."""
    moments = map(time_of, write_times(meta, subresource))
    return max((moment for moment in moments if moment is not None), default=None)


def _is_fresh(telemetry: Json) -> bool:
    conditions = maps(as_map(telemetry.get("status")).get("conditions"))
    return any(one.get("type") == "Fresh" and one.get("status") == "True" for one in conditions)
