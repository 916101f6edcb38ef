"""The fleet that decisions are made on: nodes with their devices, updated one node at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
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

    `version` increases with every change. Results are kept in `memo` together with the version they were computed at,
    and updated by the rows in `changes`.
    """

    def __init__(self) -> None:
        self.columns = Columns.empty(8, 8)
        self.changes = ChangeLog()
        self.version = 0
        self.name_epoch = 0
        """Increases when a node is added or removed, which changes the order of names that decides ties."""
        self.identities = 0
        """Increases when labels, taints or cordon of a node change, or a node is added or removed."""
        self.releases = 0
        """Increases with every change except a `hold`: an infeasible query stays infeasible until then."""
        self.models: dict[str, int] = {}
        self.link_graphs: dict[LinkGraph, int] = {}
        self.where: dict[str, tuple[int, int]] = {}
        """Device -> (row, column)."""
        self.earmarks: dict[str, str] = {}
        """Device -> message that names the workload it is earmarked for. No request gets an earmarked device."""
        self.memo = Memo()
        self._row: dict[str, int] = {}
        self._vacant: list[int] = []
        self._states: list[NodeState | None] = []
        self._cells: list[tuple[DeviceState, ...]] = []
        """Per row: the devices in the order of the columns."""
        self._debits: dict[int, list[_Debit]] = {}
        """Per row: debits in the arrays that `_states` does not include yet."""
        self._ranked_at = -1

    @classmethod
    def of(cls, nodes: Iterable[NodeState], earmarks: Mapping[str, str] = MappingProxyType({})) -> "Fleet":
        """Builds a fleet of these nodes. Raises as `put` does, and InvalidFleetError for a duplicate name.

        Args:
            nodes: The nodes.
            earmarks: As `Fleet.earmarks`; devices of other nodes are ignored.
        """
        fleet, nodes = cls(), tuple(nodes)
        fleet.earmarks = dict(earmarks)
        fleet.columns = Columns.empty(max(1, len(nodes)), max((len(n.devices) for n in nodes), default=1) or 1)
        for node in nodes:
            if node.name in fleet.nodes:
                raise InvalidFleetError(f"duplicate node {node.name}")
            fleet.put(node)
        return fleet

    @property
    def nodes(self) -> Mapping[str, NodeState]:
        """All nodes by name including debits, read-only."""
        return _Nodes(self, self._row)

    def row(self, name: str) -> int | None:
        """Returns the row of a node in `columns`; None if the node is unknown."""
        return self._row.get(name)

    def put(self, node: NodeState, *, checked: bool = False) -> None:
        """Adds or replaces a node, at the cost of one node.

        Args:
            node: The node.
            checked: `check_sample` has accepted all devices.

        Raises:
            InvalidSampleError: A measurement is impossible; the fleet is unchanged.
            InvalidFleetError: A UUID is duplicated, here or on another node; the fleet is unchanged.
        """
        cells = tuple(sorted(node.devices, key=lambda d: (d.index, d.uuid)))
        self._check(node, checked=checked)
        row = self._assign_row(node.name, len(cells))
        for device in self._cells[row]:
            del self.where[device.uuid]
        encode.clear_row(self.columns, row)
        encode.write_node(self.columns, row, node)
        for column, device in enumerate(cells):
            model = self.models.setdefault(device.model, len(self.models))
            encode.write_device(self.columns, row, column, device, model)
            self.where[device.uuid] = (row, column)
            if device.uuid in self.earmarks:
                encode.earmark(self.columns, row, column, earmarked=True)
        self.columns.link_graph[row] = self.link_graphs.setdefault(LinkGraph.of(cells), len(self.link_graphs))
        if not _same_identity(self._states[row], node):
            self.identities += 1
        self._states[row], self._cells[row] = node, cells
        self._debits.pop(row, None)
        self.releases += 1
        self._note(row)

    def remove(self, name: str) -> None:
        """Removes a node, if it exists."""
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
        self.name_epoch += 1
        self.releases += 1
        self._note(row)

    def hold(self, node: str, uuids: Iterable[str], pod: PodNeeds | None = None, share: Share | None = None) -> None:
        """Debits a pick, which no sample can show yet.

        Args:
            node: Name of the node.
            uuids: The picked devices.
            pod: The pod whose requests are debited from the node; None: no pod.
            share: The share debited from each device; None: the devices are held as a whole.

        Raises:
            InvalidFleetError: The node or a device is unknown, or a device is already held as a whole or, for a share,
                has no free share slot.
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
                raise InvalidFleetError(f"device {uuid} of node {node} is already held")
            if share is not None and self.columns.share_slots[at] < 1:
                raise InvalidFleetError(f"device {uuid} of node {node} has no free share slot")
            cells.append(at[1])
        encode.debit(self.columns, row, cells, pod, share)
        self._debits.setdefault(row, []).append(_Debit(tuple(cells), pod, share))
        self._note(row)

    def release(self, node: str, uuids: Iterable[str], pod: PodNeeds | None = None, share: Share | None = None) -> None:
        """Reverts a `hold` with the same arguments.

        Raises:
            InvalidFleetError: The node or a device is unknown, or a device is not held in this way.
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

    def earmark(self, uuids: Iterable[str], message: str) -> None:
        """Withholds devices from all requests until `clear_earmarks`. Unknown devices are ignored."""
        self._mark(dict.fromkeys(uuids, message), earmarked=True)

    def clear_earmarks(self) -> dict[str, str]:
        """Removes all earmarks and returns them."""
        found, self.earmarks = self.earmarks, {}
        self._mark(found, earmarked=False)
        return found

    def _mark(self, messages: Mapping[str, str], *, earmarked: bool) -> None:
        rows = set()
        for uuid, message in messages.items():
            if earmarked:
                self.earmarks[uuid] = message
            at = self.where.get(uuid)
            if at is not None:
                encode.earmark(self.columns, *at, earmarked=earmarked)
                rows.add(at[0])
        self.releases += 1 if rows and not earmarked else 0
        for row in sorted(rows):
            self._note(row)

    def copy(self) -> "Fleet":
        """Returns an independent fleet. Immutable node states are shared; the memo is not copied."""
        other = Fleet()
        other.columns = self.columns.map(np.copy)
        other.changes, other.version = ChangeLog(self.version), self.version
        other.name_epoch, other.identities, other.releases = self.name_epoch, self.identities, self.releases
        other.earmarks = dict(self.earmarks)
        other.models, other.link_graphs, other.where = dict(self.models), dict(self.link_graphs), dict(self.where)
        other._row, other._vacant = dict(self._row), list(self._vacant)
        other._states, other._cells = list(self._states), list(self._cells)
        other._debits = {row: list(debits) for row, debits in self._debits.items()}
        return other

    def ranked(self) -> Columns:
        """Returns the arrays with an up-to-date `rank`. Code that decides ties must use this."""
        if self._ranked_at != self.name_epoch:
            for rank, name in enumerate(sorted(self._row)):
                self.columns.rank[self._row[name]] = rank
            self._ranked_at = self.name_epoch
        return self.columns

    def state(self, row: int) -> NodeState:
        """Returns the node in a row, including debits."""
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

    def undebited(self, row: int) -> NodeState | None:
        """Returns the node in a row without debits, for its labels, taints and cordon; None if the row is empty."""
        return self._states[row] if row < len(self._states) else None

    def name(self, row: int) -> str:
        node = self._states[row]
        if node is None:
            raise InvalidFleetError(f"row {row} holds no node")
        return node.name

    def uuid(self, row: int, column: int) -> str:
        """Returns the UUID of a device by row and column."""
        return self._cells[row][column].uuid

    def uuids(self, row: int) -> list[str]:
        """Returns the devices of a row in column order."""
        return [device.uuid for device in self._cells[row]]

    def cells(self, row: int) -> tuple[DeviceState, ...]:
        """Returns the devices of a row in column order."""
        self.state(row)
        return self._cells[row]

    def _note(self, row: int) -> None:
        self.changes.add(row, self.columns.rows)
        self.version += 1

    def _check(self, node: NodeState, *, checked: bool) -> None:
        mine, seen = self._row.get(node.name), set()
        for device in node.devices:
            other = self.where.get(device.uuid)
            if device.uuid in seen or (other is not None and other[0] != mine):
                owner = node.name if other is None or other[0] == mine else self.state(other[0]).name
                raise InvalidFleetError(f"device {device.uuid} of node {node.name} is duplicated on {owner}")
            seen.add(device.uuid)
            if not checked:
                check_sample(node.name, device)

    def _assign_row(self, name: str, width: int) -> int:
        """Returns the node's row, allocating rows and columns as needed."""
        columns = self.columns
        row = self._row.get(name)
        if row is None:
            row = self._vacant.pop() if self._vacant else len(self._states)
            if row == len(self._states):
                self._states.append(None)
                self._cells.append(())
            self._row[name] = row
            self.name_epoch += 1
        if row >= columns.rows or width > columns.width:
            grown = columns.rows * 5 // 4 + 8 if row >= columns.rows else columns.rows
            self.columns = columns.resized(grown, max(width, columns.width))
            self.memo.clear()
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
    return before is not None and _identity(before) == _identity(after)


def _identity(node: NodeState) -> tuple[object, ...]:
    """Returns everything by which a node is rejected as a whole."""
    return node.name, node.unschedulable, node.not_ready, node.taints, node.labels
