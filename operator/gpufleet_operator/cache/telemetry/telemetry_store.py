"""GPUTelemetries, as the Leases of their agents confirm them."""

from collections.abc import Callable
from datetime import datetime

from gpufleet_api.names import Transport
from gpufleet_operator.cache.store import NamedStore
from gpufleet_operator.model.cluster.agent_lease import AgentLease, confirmed
from gpufleet_operator.model.cluster.measurements import measurements_only
from gpufleet_operator.model.lenient_json import Json
from gpufleet_operator.model.objects import Telemetry


class TelemetryStore(NamedStore[Telemetry]):
    """GPUTelemetries, and the names of those with devices by transport.

    Args:
        decode: Decodes a GPUTelemetry.
        changed: Called after each change, but see `measured`.
        leases: The Leases of the agents.
    """

    def __init__(
        self, decode: Callable[[Json], Telemetry | None], changed: Callable[[], None], leases: "AgentLeaseStore"
    ) -> None:
        super().__init__(decode, changed)
        self.measured: Callable[[], None] = changed
        """Called instead of `changed` after a change of measurements only."""
        self.nodes_with: dict[Transport, set[str]] = {transport: set() for transport in Transport}
        self.newest: datetime | None = None
        """When the newest status seen so far was written or confirmed."""
        self._leases = leases
        leases.renewed = self._confirm

    def put(self, item: Telemetry) -> None:
        """Adds or updates an object, confirmed by the Lease of its agent, unless the stored version is newer."""
        super().put(confirmed(item, self._leases.by_name.get(item.name), self.items.get(item.uid)))

    def _confirm(self, node: str) -> None:
        if (known := self.by_name.get(node)) is not None:
            self.put(known)

    def on_replace(self, old: Telemetry | None, new: Telemetry | None) -> None:
        super().on_replace(old, new)
        if new is not None and new.confirmed_at is not None:
            self.newest = max(self.newest or new.confirmed_at, new.confirmed_at)
        for name in {each.name for each in (old, new) if each is not None}:
            for names in self.nodes_with.values():
                names.discard(name)
            current = self.by_name.get(name)
            if current is not None and current.status is not None and current.status.devices:
                self.nodes_with[current.transport].add(name)

    def note_change(self, old: Telemetry | None, new: Telemetry | None) -> None:
        if measurements_only(old, new):
            self.measured()
        else:
            super().note_change(old, new)


class AgentLeaseStore(NamedStore[AgentLease]):
    """The Leases of agents, by the names of their nodes.

    Args:
        decode: Decodes a Lease.
    """

    def __init__(self, decode: Callable[[Json], AgentLease | None]) -> None:
        super().__init__(decode, lambda: None)
        self.renewed: Callable[[str], None] = lambda node: None  # noqa: ARG005
        """Called with the name of the node after each renewal."""

    def note_change(self, old: AgentLease | None, new: AgentLease | None) -> None:
        del old
        if new is not None:
            self.renewed(new.name)
