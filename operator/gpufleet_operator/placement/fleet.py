"""The snapshot that decisions are made on: nodes with their devices, updated one node at a time."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from gpufleet_operator.placement.errors import InvalidFleetError
from gpufleet_operator.placement.model import NodeState, PodNeeds
from gpufleet_operator.placement.samples import check_sample


class Fleet:
    """Nodes by name. `version` rises with every change, so that a caller can keep what it computed."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeState] = {}
        self._owner: dict[str, str] = {}
        self.version = 0

    @classmethod
    def of(cls, nodes: Iterable[NodeState]) -> "Fleet":
        """A fleet of these nodes; raises as `put` does."""
        fleet = cls()
        for node in nodes:
            fleet.put(node)
        return fleet

    @property
    def nodes(self) -> Mapping[str, NodeState]:
        """All nodes by name, read-only."""
        return MappingProxyType(self._nodes)

    def put(self, node: NodeState) -> None:
        """Add a node, or replace what was known of it; the cost is that of one node.

        Raises:
            InvalidSampleError: a measurement can't be true; the fleet is as before.
            InvalidFleetError: a UUID stands twice, here or on another node; the fleet is as before.
        """
        seen: set[str] = set()
        for device in node.devices:
            owner = self._owner.get(device.uuid, node.name)
            if owner != node.name or device.uuid in seen:
                raise InvalidFleetError(f"device {device.uuid} of node {node.name} stands twice, also on {owner}")
            seen.add(device.uuid)
            check_sample(node.name, device)
        self.remove(node.name)
        self._nodes[node.name] = node
        self._owner.update(dict.fromkeys(seen, node.name))
        self.version += 1

    def remove(self, name: str) -> None:
        """Forget a node; nothing happens when it isn't there."""
        node = self._nodes.pop(name, None)
        if node is not None:
            for device in node.devices:
                del self._owner[device.uuid]
            self.version += 1

    def hold(self, node: str, uuids: Iterable[str], pod: PodNeeds | None = None) -> None:
        """Debit a pick: its devices are held and, with `pod`, the node has that much less room.

        Raises:
            InvalidFleetError: an unknown node or device, or a device that is held already.
        """
        state = self._nodes.get(node)
        if state is None:
            raise InvalidFleetError(f"node {node} is not in the fleet")
        wanted = set(uuids)
        unknown = wanted - {d.uuid for d in state.devices}
        if unknown:
            raise InvalidFleetError(f"node {node} has no device {min(unknown)}")
        twice = sorted(d.uuid for d in state.devices if d.held and d.uuid in wanted)
        if twice:
            raise InvalidFleetError(f"device {twice[0]} of node {node} is held already")
        devices = tuple(replace(d, held=True) if d.uuid in wanted else d for d in state.devices)
        held = replace(state, devices=devices)
        self._nodes[node] = held if pod is None else _less_room(held, pod)
        self.version += 1

    def copy(self) -> "Fleet":
        """An independent fleet. The node states are shared, since they never change."""
        other = Fleet()
        other._nodes, other._owner, other.version = dict(self._nodes), dict(self._owner), self.version
        return other


def _less_room(node: NodeState, pod: PodNeeds) -> NodeState:
    extended = {**node.free_extended, **{k: node.free_extended.get(k, 0) - v for k, v in pod.extended.items()}}
    return replace(
        node,
        free_cpu_milli=node.free_cpu_milli - pod.cpu_milli,
        free_memory_bytes=node.free_memory_bytes - pod.memory_bytes,
        free_pods=node.free_pods - 1,
        free_extended=extended,
    )
