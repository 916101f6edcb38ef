"""The two CustomResourceDefinitions: names, scope, columns and defaults around the models' schemas.

The columns are chosen so that a plain `kubectl get` tells the story without the command line tool.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gpufleet_api import names
from gpufleet_api.base import ApiModel
from gpufleet_api.schema import Schema, structural_schema
from gpufleet_api.telemetry import GPUTelemetry
from gpufleet_api.workload import GPUWorkload


@dataclass(frozen=True)
class PrinterColumn:
    """One column of `kubectl get`; `wide` ones are shown by `-o wide` alone."""

    name: str
    type: Literal["string", "integer", "boolean", "date"]
    path: str
    description: str
    wide: bool = False

    def as_schema(self) -> dict[str, Any]:
        """The column as it stands in the CRD."""
        column = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.description}
        return (
            {**column, "priority": 1} if self.wide else column
        )  # the apiserver drops a 0, which would look like drift


@dataclass(frozen=True)
class ApiResource:
    """One kind of the API group and how it is shown. `status_default` is what a fresh object's status says."""

    model: type[ApiModel]
    kind: str
    plural: str
    short_name: str
    scope: Literal["Cluster", "Namespaced"]
    columns: tuple[PrinterColumn, ...]
    status_default: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{names.GROUP}"

    def definition(self) -> dict[str, Any]:
        """The CustomResourceDefinition."""
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
                        "subresources": {"status": {}},
                        "additionalPrinterColumns": [column.as_schema() for column in self.columns],
                        "schema": {"openAPIV3Schema": self._schema()},
                    }
                ],
            },
        }

    def _schema(self) -> Schema:
        """The model's schema under what every object has; the apiserver itself knows `metadata`."""
        schema = structural_schema(self.model, omit={"metadata"})
        fields = schema.pop("properties")
        if self.status_default is not None:
            fields["status"] = {**fields["status"], "default": dict(self.status_default)}
        head = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        return {**schema, "properties": {**head, **fields}}


_AGE: Final = PrinterColumn("Age", "date", ".metadata.creationTimestamp", "Time since the object was created.")

WORKLOAD: Final = ApiResource(
    model=GPUWorkload,
    kind=names.WORKLOAD_KIND,
    plural=names.WORKLOAD_PLURAL,
    short_name="gpuw",
    scope="Namespaced",
    columns=(
        PrinterColumn(
            "Confirmed", "string", ".status.confirmed", "Replicas whose devices the kubelet confirmed, of all."
        ),
        PrinterColumn("GPUs each", "integer", ".spec.devices.count", "Devices of each replica."),
        PrinterColumn("Nodes", "string", ".status.nodes", "Nodes in use."),
        PrinterColumn(
            "Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether all replicas hold devices."
        ),
        PrinterColumn("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready or isn't."),
        _AGE,
        PrinterColumn("Strategy", "string", ".spec.placement.strategy", "How devices are chosen.", wide=True),
        PrinterColumn(
            "Message", "string", '.status.conditions[?(@.type=="Ready")].message', "The same in words.", wide=True
        ),
    ),
    # Without a condition, kstatus (kubectl wait, Argo CD, Flux) would call an object that no operator has seen Current.
    status_default={
        "conditions": [
            {
                "type": "Ready",
                "status": "Unknown",
                "reason": "Pending",
                "message": "Waiting for the gpufleet operator",
                "lastTransitionTime": "1970-01-01T00:00:00Z",
            }
        ]
    },
)

TELEMETRY: Final = ApiResource(
    model=GPUTelemetry,
    kind=names.TELEMETRY_KIND,
    plural=names.TELEMETRY_PLURAL,
    short_name="gput",
    scope="Cluster",
    columns=(
        PrinterColumn("GPUs", "integer", ".status.summary.devices", "Devices of the node."),
        PrinterColumn("Healthy", "integer", ".status.summary.healthy", "Devices without a fault."),
        PrinterColumn(
            "Allocated", "integer", ".status.summary.allocated", "Devices that the kubelet gave to containers."
        ),
        PrinterColumn("Used MiB", "integer", ".status.summary.memoryUsedMiB", "Memory in use."),
        PrinterColumn("Total MiB", "integer", ".status.summary.memoryTotalMiB", "Memory of all devices."),
        PrinterColumn("Util %", "integer", ".status.summary.meanUtilizationPercent", "Mean compute utilization."),
        PrinterColumn("Temp C", "integer", ".status.summary.meanTemperatureCelsius", "Mean temperature."),
        PrinterColumn("Milliwatts", "integer", ".status.summary.powerMilliwatts", "Power drawn by all devices."),
        PrinterColumn("Observed", "date", ".status.observedAt", "Time since the agent last wrote."),
        PrinterColumn("Driver", "string", ".status.driverVersion", "Version of the GPU driver.", wide=True),
        PrinterColumn("Agent", "string", ".status.agentVersion", "Version of the agent.", wide=True),
        PrinterColumn("Age", "date", ".metadata.creationTimestamp", "Time since the object was created.", wide=True),
    ),
)

RESOURCES: Final = (TELEMETRY, WORKLOAD)
