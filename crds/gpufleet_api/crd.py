"""The CustomResourceDefinitions: names, scope, columns and defaults around the models' schemas.

The printer columns show state, use and age without the command-line tool. Their names have no blanks, for awk.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from gpufleet_api import names
from gpufleet_api.base import ApiModel
from gpufleet_api.demand.gpu_demand import GPUDemand
from gpufleet_api.schema import Schema, structural_schema
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_api.workload import GPUWorkload


@dataclass(frozen=True)
class PrinterColumn:
    """A column of `kubectl get`; a `wide` one is shown by `-o wide` only."""

    name: str
    type: Literal["string", "integer", "boolean", "date"]
    path: str
    description: str
    wide: bool = False

    def as_schema(self) -> dict[str, Any]:
        """Returns the column as the CRD has it."""
        column = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.description}
        # Priority 0 is left out: the apiserver drops it, which would look like drift.
        return {**column, "priority": 1} if self.wide else column


@dataclass(frozen=True)
class ApiResource:
    """A kind of the API group.

    Attributes:
        status_default: Status of a new object.
        scale: Paths of the scale subresource; None without one.
    """

    model: type[ApiModel]
    kind: str
    plural: str
    short_name: str
    scope: Literal["Cluster", "Namespaced"]
    columns: tuple[PrinterColumn, ...]
    status_default: Mapping[str, Any] | None = None
    scale: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        return f"{self.plural}.{names.GROUP}"

    def definition(self) -> dict[str, Any]:
        scale = {"scale": dict(self.scale)} if self.scale else {}
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": self.name},
            "spec": {
                "group": names.GROUP,
                "scope": self.scope,
                "names": {
                    "kind": self.kind,
                    "listKind": f"{self.kind}List",
                    "plural": self.plural,
                    "singular": self.kind.lower(),
                    "shortNames": [self.short_name],
                    "categories": ["gpufleet"],
                },
                "versions": [
                    {
                        "name": names.VERSION,
                        "served": True,
                        "storage": True,
                        "subresources": {"status": {}, **scale},
                        "additionalPrinterColumns": [column.as_schema() for column in self.columns],
                        "schema": {"openAPIV3Schema": self._schema()},
                    }
                ],
            },
        }

    def _schema(self) -> Schema:
        schema: Schema = json.loads(_structural(self.model))
        fields = schema.pop("properties")
        if self.status_default is not None:
            fields["status"] = {**fields["status"], "default": dict(self.status_default)}
        head = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        return {**schema, "properties": {**head, **fields}}


@cache
def _structural(model: type[ApiModel]) -> str:
    """Returns the schema of a kind as JSON. Converting the models takes many times as long as reading the text."""
    return json.dumps(structural_schema(model, omit={"metadata"}))


_AGE: Final = PrinterColumn("Age", "date", ".metadata.creationTimestamp", "Time since the object was created.")

_FRESH: Final = '.status.conditions[?(@.type=="Fresh")]'
_SUMMARY: Final = ".status.summary"

WORKLOAD: Final = ApiResource(
    model=GPUWorkload,
    kind=names.WORKLOAD_KIND,
    plural=names.WORKLOAD_PLURAL,
    short_name="gpuw",
    scope="Namespaced",
    columns=(
        PrinterColumn("Ready", "string", ".status.ready", "Ready or succeeded replicas, of all replicas."),
        PrinterColumn(
            "Status", "string", ".status.state", "Pending, Running, Complete, Failed, Suspended, ScaledToZero or Idle."
        ),
        PrinterColumn("Reason", "string", ".status.reason", "Reason of the condition Ready, Complete or Suspended."),
        PrinterColumn("GPUs", "integer", ".status.gpus", "Devices that are reserved for the replicas."),
        PrinterColumn("Nodes", "string", ".status.nodes", "Nodes of the replicas."),
        _AGE,
        PrinterColumn("Strategy", "string", ".spec.placement.strategy", "Placement strategy.", wide=True),
        PrinterColumn(
            "Message",
            "string",
            ".status.conditions[0].message",
            "Message of the condition Ready, Complete or Suspended.",
            wide=True,
        ),
    ),
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
    # Without a condition, kstatus (kubectl wait, Argo CD, Flux) reports an object that no operator has seen as Current.
    status_default={
        "state": "Pending",
        "reason": "Pending",
        "conditions": [
            {
                "type": "Ready",
                "status": "Unknown",
                "reason": "Pending",
                "message": "Waiting for the gpufleet operator",
                "lastTransitionTime": "1970-01-01T00:00:00Z",
            }
        ],
    },
)

TELEMETRY: Final = ApiResource(
    model=GPUTelemetry,
    kind=names.TELEMETRY_KIND,
    plural=names.TELEMETRY_PLURAL,
    short_name="gput",
    scope="Cluster",
    columns=(
        PrinterColumn("Status", "string", f"{_FRESH}.reason", "Fresh, Stale, NoDriver or Invalid."),
        PrinterColumn("GPUs", "integer", f"{_SUMMARY}.devices", "Devices of the node."),
        PrinterColumn("Healthy", "integer", f"{_SUMMARY}.healthy", "Devices without a fault."),
        PrinterColumn("Allocated", "integer", f"{_SUMMARY}.allocated", "Devices that containers hold."),
        PrinterColumn(
            "Free", "integer", f"{_SUMMARY}.free", "Devices that no container holds and that can be given to one."
        ),
        PrinterColumn("Used-MiB", "integer", f"{_SUMMARY}.memoryUsedMiB", "Memory in use, in MiB."),
        PrinterColumn("Total-MiB", "integer", f"{_SUMMARY}.memoryTotalMiB", "Total memory, in MiB."),
        PrinterColumn("Util%", "integer", f"{_SUMMARY}.meanUtilizationPercent", "Mean utilization, in percent."),
        PrinterColumn("Temp-C", "integer", f"{_SUMMARY}.meanTemperatureCelsius", "Mean temperature, in Celsius."),
        PrinterColumn("Watts", "integer", f"{_SUMMARY}.powerWatts", "Power draw of all devices, in watts."),
        PrinterColumn(
            "Observed",
            "date",
            ".status.observedAt",
            "Time since the agent last wrote the status: up to six minutes at rest.",
        ),
        PrinterColumn("Driver", "string", ".status.driverVersion", "Version of the GPU driver.", wide=True),
        PrinterColumn("Agent", "string", ".status.agentVersion", "Version of the agent.", wide=True),
        PrinterColumn("Age", "date", ".metadata.creationTimestamp", "Time since the object was created.", wide=True),
    ),
)

DEMAND: Final = ApiResource(
    model=GPUDemand,
    kind=names.DEMAND_KIND,
    plural=names.DEMAND_PLURAL,
    short_name="gpud",
    scope="Namespaced",
    columns=(
        PrinterColumn("Kind", "string", ".spec.owner.kind", "Kind of the owner."),
        PrinterColumn("Owner", "string", ".spec.owner.name", "Name of the owner, without what is added for a run."),
        PrinterColumn("Container", "string", ".spec.container", "Name of the container."),
        PrinterColumn("Runs", "integer", ".status.countedRuns", "Listed runs that count."),
        PrinterColumn("Promised-MiB", "integer", ".status.promisedMiB", "Promised memory of the latest run, in MiB."),
        PrinterColumn("Median-MiB", "integer", ".status.medianMiB", "Median of the runs' maxima, in MiB."),
        PrinterColumn("P80-MiB", "integer", ".status.p80MiB", "80th percentile of the runs' maxima, in MiB."),
        PrinterColumn("Max-MiB", "integer", ".status.maxMiB", "Largest of the runs' maxima, in MiB."),
        PrinterColumn("Recommended-MiB", "integer", ".status.recommendedMiB", "Recommended memoryMiB."),
        PrinterColumn("Observed", "date", ".status.observedAt", "Time since the operator wrote the status."),
        PrinterColumn("Image", "string", ".spec.image", "Image without tag and digest.", wide=True),
        PrinterColumn("Total", "integer", ".status.totalRuns", "Runs so far, listed or not.", wide=True),
        PrinterColumn("Age", "date", ".metadata.creationTimestamp", "Time since the object was created.", wide=True),
    ),
)

RESOURCES: Final = (TELEMETRY, WORKLOAD, DEMAND)
