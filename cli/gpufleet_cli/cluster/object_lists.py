"""Lists of objects as they were read at one time, from a cluster or from files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gpufleet_cli.cluster.kinds import AGENT_LEASES, ObjectKind
from gpufleet_cli.freshness import Renewals
from gpufleet_operator.model.lenient_json import Json


@dataclass(frozen=True, slots=True)
class ObjectLists:
    """Objects by kind. `now` is the time of the read; None for saved objects, whose age does not count."""

    items: Mapping[ObjectKind, tuple[Json, ...]]
    now: datetime | None = None
    unreadable: Mapping[ObjectKind, str] = field(default_factory=dict)
    """Kinds that could not be read, and why."""

    def of(self, kind: ObjectKind) -> tuple[Json, ...]:
        """Returns the objects of a kind; none when it was not read or could not be read."""
        return self.items.get(kind, ())

    @property
    def renewals(self) -> Renewals:
        """Returns the renewals of the Leases of agents."""
        return Renewals.of(self.of(AGENT_LEASES), readable=AGENT_LEASES not in self.unreadable)
