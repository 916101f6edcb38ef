"""Names of Kueue's API that the operator uses."""

from typing import Final

GROUP: Final = "kueue.x-k8s.io"
VERSION: Final = f"{GROUP}/v1beta2"
QUEUE_LABEL: Final = f"{GROUP}/queue-name"
PRIORITY_CLASS_LABEL: Final = f"{GROUP}/priority-class"
POD_GROUP_LABEL: Final = f"{GROUP}/pod-group-name"
POD_GROUP_SIZE_ANNOTATION: Final = f"{GROUP}/pod-group-total-count"
SCHEDULING_GATE: Final = f"{GROUP}/admission"
"""Scheduling gate of pods that Kueue has not admitted. Only Kueue adds and removes it."""
SCHEDULING_GATES: Final = frozenset({SCHEDULING_GATE, f"{GROUP}/topology"})
"""All scheduling gates of Kueue. It removes both when it admits a pod that requests no topology."""

EVICTED_BY_CHECK: Final = "AdmissionCheck"
"""Reason of the condition Evicted of a Workload after the answer Retry: Kueue orders by the time of this condition."""
CHECK_CONTROLLER: Final = "gpufleet.dev/devices"
"""`spec.controllerName` of the AdmissionChecks that the operator answers."""
