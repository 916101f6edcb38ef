"""The engine's fleet, kept from pass to pass: a change of a node costs that node, and results are kept row by row."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from gpufleet_operator.fleet.build import BuiltFleet, NodeInputs, excluded
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.model import DeviceState, NodeState, Request

_FIELDS = tuple(each.name for each in fields(DeviceState))
_device: Callable[..., DeviceState] = DeviceState
_AGE = _FIELDS.index("sample_age_seconds")
_values: Callable[[DeviceState], tuple[Any, ...]] = attrgetter(*_FIELDS)


class ContestedDeviceError(Exception):
    """Two nodes report one device, or did so before. Only all nodes in the order of their names decide who keeps it."""


@dataclass(slots=True)
class KeptFleet:
    """The fleet, and the nodes as they were put into it."""

    fleet: Fleet = field(default_factory=Fleet)
    stale_at: dict[str, datetime] = field(default_factory=dict)
    """By node name: when the node, or the first of its devices, becomes stale if nothing changes."""
    inconsistencies: tuple[str, ...] = ()
    earmarks: dict[str, tuple[str, str, float | None]] = field(default_factory=dict)
    """Device -> node, uid of the workload that it is earmarked for, and when it is free, in seconds since the epoch."""
    _inputs: dict[str, NodeInputs] = field(default_factory=dict)
    """Input of the nodes at the last update."""
    _states: dict[str, NodeState] = field(default_factory=dict)
    _contested: set[str] = field(default_factory=set)
    _held: set[str] = field(default_factory=set)
    """Nodes from which picks of a pass were deducted: the next update replaces them."""

    def fill(self, states: Iterable[NodeState], now: datetime, stale_after: timedelta) -> None:
        """Puts all nodes, in the order of their names, into an empty fleet."""
        inconsistencies = []
        for state in states:
            self._note_age(state, now, stale_after)
            kept = _without_ages(state)
            try:
                self.fleet.put(kept, checked=True)
            except PlacementError as error:
                inconsistencies.append(str(error))
                owners = (self.fleet.where.get(device.uuid) for device in state.devices)
                self._contested |= {state.name, *(self.fleet.name(at[0]) for at in owners if at is not None)}
                kept = excluded(kept, error)
                self.fleet.put(kept, checked=True)
            self._states[state.name] = kept
        self.inconsistencies = tuple(inconsistencies)

    def note_inputs(self, inputs: Iterable[NodeInputs]) -> set[str]:
        """Stores the input of nodes. Returns the names of those whose state did not change since the last update."""
        unchanged = set()
        for one in inputs:
            before, stale_at = self._inputs.get(one.name), self.stale_at.get(one.name)
            self._inputs[one.name] = one
            if before is None or not one.same_state(before) or (stale_at is not None and one.at >= stale_at):
                continue
            if one.telemetry is not before.telemetry:
                if stale_at is None or _has_stale(self._states.get(one.name)):
                    continue
                self.stale_at[one.name] = stale_at + _confirmed_later(one, before)
            unchanged.add(one.name)
        return unchanged

    def update(
        self,
        names: Iterable[str],
        states: Iterable[NodeState],
        now: datetime,
        stale_after: timedelta,
        *,
        unchanged: Collection[str] = (),
    ) -> list[NodeState]:
        """Updates some nodes, and returns those that changed. The earmarks of the last pass end.

        Args:
            names: The nodes; one without a state is removed.
            states: The nodes as they are now, by name.
            now: Time of the pass.
            stale_after: Age from which measurements are not used.
            unchanged: Nodes whose state is the one of the last update.

        Raises:
            ContestedDeviceError: The fleet has to be filled again.
        """
        wanted = set(names)
        if not self._contested.isdisjoint(wanted):
            raise ContestedDeviceError
        self.fleet.clear_earmarks()
        current = {state.name: state for state in states}
        for name in wanted - current.keys() - set(unchanged):
            self.fleet.remove(name)
            self._states.pop(name, None)
            self._inputs.pop(name, None)
            self.stale_at.pop(name, None)
        changed = self.nodes(self._held.intersection(unchanged))
        self.restore(state.name for state in changed)
        for state in current.values():
            self._note_age(state, now, stale_after)
            kept = _without_ages(state)
            if self._states.get(state.name) == kept and state.name not in self._held:
                continue
            try:
                self.fleet.put(kept, checked=True)
            except PlacementError as error:
                raise ContestedDeviceError(str(error)) from error
            self._states[state.name] = kept
            changed.append(kept)
        self._held -= wanted
        return changed

    def note_picks(self, names: Iterable[str]) -> None:
        """Notes the nodes from which a pass has deducted picks."""
        self._held.update(names)

    def restore(self, names: Iterable[str]) -> None:
        """Restores nodes from which the picks of an unfinished pass were deducted."""
        for name in names:
            self.fleet.put(self._states[name], checked=True)

    def nodes(self, names: Iterable[str]) -> list[NodeState]:
        """Returns those of the nodes that exist."""
        return [self._states[name] for name in names if name in self._states]

    @property
    def built(self) -> BuiltFleet:
        return BuiltFleet(self.fleet, self.inconsistencies)

    def _note_age(self, state: NodeState, now: datetime, stale_after: timedelta) -> None:
        """Notes when a device's sample becomes too old."""
        limit = stale_after.total_seconds()
        left = [limit - d.sample_age_seconds for d in state.devices if d.sample_age_seconds is not None]
        fresh = [seconds for seconds in left if seconds >= 0]
        if fresh:
            self.stale_at[state.name] = now + timedelta(seconds=min(fresh))
        else:
            self.stale_at.pop(state.name, None)


def _has_stale(state: NodeState | None) -> bool:
    """Returns True if a renewal may make a sample fresh again."""
    return state is None or any(device.stale_reason is not None for device in state.devices)


def _confirmed_later(inputs: NodeInputs, before: NodeInputs) -> timedelta:
    """Returns by how much a renewal of the agent's Lease makes all samples of a node younger."""
    now, earlier = inputs.telemetry.confirmed_at, before.telemetry.confirmed_at
    return now - earlier if now is not None and earlier is not None else timedelta(0)


def _without_ages(state: NodeState) -> NodeState:
    """Returns the node with the ages of all samples as 0: the engine only uses whether a device was sampled."""
    return replace(state, devices=tuple(_without_age(device) for device in state.devices))


def _without_age(device: DeviceState) -> DeviceState:
    if device.sample_age_seconds is None:
        return device
    # As replace() does, which takes three times as long.
    values = _values(device)
    return _device(*values[:_AGE], 0.0, *values[_AGE + 1 :])


def could_serve(node: NodeState, request: Request) -> bool:
    """Returns False if it is certain that the node cannot serve any replica of a request.

    A plain test of devices: it spares the engine a question whose answer is known.
    """
    needs = request.devices
    if node.stale_reason is not None:
        return False
    usable = 0
    for device in node.devices:
        if device.held or not device.healthy or device.cordoned is not None or device.stale_reason is not None:
            continue
        if device.sharers and needs.share is None:
            continue
        if needs.models and device.model not in needs.models:
            continue
        total = device.memory_total_mib
        if needs.min_free_memory_mib is not None and (total is None or total < needs.min_free_memory_mib):
            continue
        usable += 1
    return usable >= needs.count
