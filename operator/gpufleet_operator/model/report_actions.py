"""Writes that describe the state of nodes and gated pods to people and to other tools. No decision depends on them."""

import re
from dataclasses import dataclass

from gpufleet_api.condition import Condition
from gpufleet_operator.model.json_patch import JsonPatchOperation
from gpufleet_operator.model.objects import NodeCondition


@dataclass(frozen=True, slots=True)
class WriteTelemetryConditions:
    """Replace the operator's conditions of a GPUTelemetry."""

    node: str
    uid: str
    conditions: tuple[Condition, ...]

    @property
    def key(self) -> str:
        """One per GPUTelemetry."""
        return telemetry_conditions_key(self.uid)


def telemetry_conditions_key(uid: str) -> str:
    """Returns the key of the conditions of a GPUTelemetry."""
    return f"telemetry-conditions/{uid}"


@dataclass(frozen=True, slots=True)
class WriteNodeCondition:
    """Set the operator's condition of a Node; None removes it."""

    node: str
    uid: str
    condition: NodeCondition | None

    @property
    def key(self) -> str:
        """One per Node."""
        return node_condition_key(self.uid)


def node_condition_key(uid: str) -> str:
    """Returns the key of the condition of a Node."""
    return f"node-condition/{uid}"


@dataclass(frozen=True, slots=True)
class ExplainPod:
    """Record why a pod is gated: as an event, and as an annotation if its value changes."""

    pod_uid: str
    namespace: str
    name: str
    reason: str
    """Of the event."""
    note: str
    warning: bool
    patch: tuple[JsonPatchOperation, ...] = ()
    """Sets the annotation; empty: it has the right value already."""

    @property
    def key(self) -> str:
        return explain_key(self.pod_uid)

    @property
    def note_without_numbers(self) -> str:
        """Returns the note without numbers, which change with each telemetry."""
        return re.sub(r"[\d,.]+", "#", self.note)


def explain_key(pod_uid: str) -> str:
    """Returns the key of a pod's explanation."""
    return f"explain/{pod_uid}"


Report = WriteTelemetryConditions | WriteNodeCondition | ExplainPod


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports of one decision."""

    telemetry: tuple[WriteTelemetryConditions, ...] = ()
    nodes: tuple[WriteNodeCondition, ...] = ()
    pods: tuple[ExplainPod, ...] = ()

    @property
    def empty(self) -> bool:
        """True when there is nothing to write."""
        return not (self.telemetry or self.nodes or self.pods)
