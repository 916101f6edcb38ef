"""The snapshot that decisions are made on: nodes with their devices, updated one node at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gpufleet_operator.placement.errors import InvalidFleetError
from gpufleet_operator.placement.fleet import encode
from gpufleet_operator.placement.fleet.accounting import credited, debited, with_pod, without_pod
from gpufleet_operator.placement.fleet.change_log import ChangeLog
from gpufleet_operator.placement.fleet.columns import HELD, Columns
from gpufleet_operator.placement.fleet.memo import Memo
from gpufleet_operator.placement.fleet.nvlink import LinkGraph
from gpufleet_operator.placement.fleet.validate_sample import check_sample
from gpufleet_operator.placement.model import DeviceState, NodeState, PodNeeds, Share


class _Debit(NamedTuple):
    cells: tuple[int, ...]
    pod: PodNeeds | None
    share: Share | None


class Fleet:
    """Nodes by name.

    `version` rises with every change; what is computed from the fleet is kept in `cache` together with the version
    it was computed at, and brought up to date by the rows in `changes`.
    """

    def __init__(self) -> None:
        self.columns = Columns.empty(8, 8)
        self.changes = ChangeLog()
        self.version = 0
        self.epoch = 0
        """Rises when a node comes or goes: then the order of names, which decides ties, is another."""
        self.identities = 0
        """Rises when labels, taints or cordon of a node change, or a node comes or goes."""
        self.releases = 0
        """Rises with every change but a `hold`: what no node can serve, none can until then."""
        self.models: dict[str, int] = {}
        self.wirings: dict[LinkGraph, int] = {}
        self.where: dict[str, tuple[int, int]] = {}
        """Device -> (row, column)."""
        self.cache = Memo()
        self._row: dict[str, int] = {}
        self._vacant: list[int] = []
        self._states: list[NodeState | None] = []
        self._cells: list[tuple[DeviceState, ...]] = []
        """Per row: the devices in the order of the columns."""
        self._debits: dict[int, list[_Debit]] = {}
        """Per row: debits that the arrays know of and `_states` doesn't yet."""
        self._ranked_at = -1

    @classmethod
    def of(cls, nodes: Iterable[NodeState]) -> "Fleet":
        """A fleet of these nodes; raises as `put` does, and InvalidFleetError when a name stands twice."""
        fleet, nodes = cls(), tuple(nodes)
        fleet.columns = Columns.empty(max(1, len(nodes)), max((len(n.devices) for n in nodes), default=1) or 1)
        for node in nodes:
            if node.name in fleet.nodes:
                raise InvalidFleetError(f"node {node.name} stands twice")
            fleet.put(node)
        return fleet

    @property
    def nodes(self) -> Mapping[str, NodeState]:
        """All nodes by name with what was debited since, read-only."""
        return _Nodes(self, self._row)

    def row(self, name: str) -> int | None:
        """The row of a node in `columns`; None: there is no such node."""
        return self._row.get(name)

    def put(self, node: NodeState) -> None:
        """Add a node, or replace what was known of it; the cost is that of one node.

        Raises:
            InvalidSampleError: a measurement can't be true; the fleet is as before.
            InvalidFleetError: a UUID stands twice, here or on another node; the fleet is as before.
        """
        cells = tuple(sorted(node.devices, key=lambda d: (d.index, d.uuid)))
        self._check(node)
        row = self._claim(node.name, len(cells))
        for device in self._cells[row]:
            del self.where[device.uuid]
        encode.clear_row(self.columns, row)
        encode.write_node(self.columns, row, node)
        for column, device in enumerate(cells):
            model = self.models.setdefault(device.model, len(self.models))
            encode.write_device(self.columns, row, column, device, model)
            self.where[device.uuid] = (row, column)
        self.columns.wiring[row] = self.wirings.setdefault(LinkGraph.of(cells), len(self.wirings))
        if not _same_identity(self._states[row], node):
            self.identities += 1
        self._states[row], self._cells[row] = node, cells
        self._debits.pop(row, None)
        self.releases += 1
        self._note(row)

    def remove(self, name: str) -> None:
        """Forget a node; nothing happens when it isn't there."""
        row = self._row.pop(name, None)
        if row is None:
            return
        for device in self._cells[row]:
            del self.where[device.uuid]
        encode.clear_row(self.columns, row)
        self._states[row], self._cells[row] = None, ()
        self.identities += 1
        self._debits.pop(row, None)
        self._vacant.append(row)
        self.epoch += 1
        self.releases += 1
        self._note(row)

    def hold(self, node: str, uuids: Iterable[str], pod: PodNeeds | None = None, share: Share | None = None) -> None:
        """Debit a pick, which the samples can't show yet.

        Args:
            node: its name.
            uuids: the devices picked.
            pod: what the node's room shrinks by; None: nothing.
            share: what each device is promised away; None: the devices are held as a whole.

        Raises:
            InvalidFleetError: an unknown node or device, or a device that is held as a whole already or, for a share,
                has no slot left.
        """
        row = self._row.get(node)
        if row is None:
            raise InvalidFleetError(f"node {node} is not in the fleet")
        cells = []
        for uuid in dict.fromkeys(uuids):
            at = self.where.get(uuid)
            if at is None or at[0] != row:
                raise InvalidFleetError(f"node {node} has no device {uuid}")
            if self.columns.state[at] & HELD:
                raise InvalidFleetError(f"device {uuid} of node {node} is held already")
            if share is not None and self.columns.slots[at] < 1:
                raise InvalidFleetError(f"device {uuid} of node {node} has no slot left")
            cells.append(at[1])
        encode.debit(self.columns, row, cells, pod, share)
        self._debits.setdefault(row, []).append(_Debit(tuple(cells), pod, share))
        self._note(row)

    def release(self, node: str, uuids: Iterable[str], pod: PodNeeds | None = None, share: Share | None = None) -> None:
        """Take a `hold` back, with the same arguments: for what-if questions.

        Raises:
            InvalidFleetError: an unknown node or device, or a device that isn't held in this way.
        """
        row = self._row.get(node)
        if row is None:
            raise InvalidFleetError(f"node {node} is not in the fleet")
        state, wanted = self.state(row), set(uuids)
        unknown = wanted - {d.uuid for d in state.devices}
        if unknown:
            raise InvalidFleetError(f"node {node} has no device {min(unknown)}")
        devices = tuple(credited(d, share) if d.uuid in wanted else d for d in state.devices)
        state = replace(state, devices=devices)
        self.put(state if pod is None else without_pod(state, pod))

    def copy(self) -> "Fleet":
        """An independent fleet. The node states are shared, since they never change; nothing cached is taken along."""
        other = Fleet()
        other.columns = self.columns.map(np.copy)
        other.changes, other.version = ChangeLog(self.version), self.version
        other.epoch, other.identities, other.releases = self.epoch, self.identities, self.releases
        other.models, other.wirings, other.where = dict(self.models), dict(self.wirings), dict(self.where)
        other._row, other._vacant = dict(self._row), list(self._vacant)
        other._states, other._cells = list(self._states), list(self._cells)
        other._debits = {row: list(debits) for row, debits in self._debits.items()}
        return other

    def ranked(self) -> Columns:
        """The arrays with `rank` in order of names: read them through this wherever ties are decided."""
        if self._ranked_at != self.epoch:
            for rank, name in enumerate(sorted(self._row)):
                self.columns.rank[self._row[name]] = rank
            self._ranked_at = self.epoch
        return self.columns

    def state(self, row: int) -> NodeState:
        """The node in a row, with what was debited since it was put."""
        node = self._states[row]
        if node is None:
            raise InvalidFleetError(f"row {row} holds no node")
        debits = self._debits.pop(row, None)
        if debits:
            cells = list(self._cells[row])
            for debit in debits:
                node = with_pod(node, debit.pod) if debit.pod is not None else node
                for cell in debit.cells:
                    cells[cell] = debited(cells[cell], debit.share)
            by_uuid = {d.uuid: d for d in cells}
            node = replace(node, devices=tuple(by_uuid[d.uuid] for d in node.devices))
            self._states[row], self._cells[row] = node, tuple(cells)
        return node

    def labelled(self, row: int) -> NodeState | None:
        """The node in a row as far as labels, taints and cordon go; None: no node has the row."""
        return self._states[row] if row < len(self._states) else None

    def name(self, row: int) -> str:
        """The name of the node in a row."""
        node = self._states[row]
        if node is None:
            raise InvalidFleetError(f"row {row} holds no node")
        return node.name

    def uuid(self, row: int, column: int) -> str:
        """One device by its place in the arrays."""
        return self._cells[row][column].uuid

    def uuids(self, row: int) -> list[str]:
        """The devices of a row in the order of the columns."""
        return [device.uuid for device in self._cells[row]]

    def cells(self, row: int) -> tuple[DeviceState, ...]:
        """The devices of a row in the order of the columns."""
        self.state(row)
        return self._cells[row]

    def _note(self, row: int) -> None:
        self.changes.add(row, self.columns.rows)
        self.version += 1

    def _check(self, node: NodeState) -> None:
        mine, seen = self._row.get(node.name), set()
        for device in node.devices:
            other = self.where.get(device.uuid)
            if device.uuid in seen or (other is not None and other[0] != mine):
                owner = node.name if other is None or other[0] == mine else self.state(other[0]).name
                raise InvalidFleetError(f"device {device.uuid} of node {node.name} stands twice, also on {owner}")
            seen.add(device.uuid)
            check_sample(node.name, device)

    def _claim(self, name: str, width: int) -> int:
        """The node's row, made if need be, with room for `width` devices."""
        columns = self.columns
        row = self._row.get(name)
        if row is None:
            row = self._vacant.pop() if self._vacant else len(self._states)
            if row == len(self._states):
                self._states.append(None)
                self._cells.append(())
            self._row[name] = row
            self.epoch += 1
        if row >= columns.rows or width > columns.width:
            grown = columns.rows * 5 // 4 + 8 if row >= columns.rows else columns.rows
            self.columns = columns.resized(grown, max(width, columns.width))
            self.cache.clear()
        return row


class _Nodes(Mapping[str, NodeState]):
    def __init__(self, fleet: Fleet, rows_: dict[str, int]) -> None:
        self._fleet, self._rows = fleet, rows_

    def __getitem__(self, name: str) -> NodeState:
        return self._fleet.state(self._rows[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _same_identity(before: NodeState | None, after: NodeState) -> bool:
    return before is not None and (before.name, before.unschedulable, before.taints, before.labels) == (
        after.name,
        after.unschedulable,
        after.taints,
        after.labels,
    )
