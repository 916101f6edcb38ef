"""Options for the series of devices: labels, and which series are exported."""

from dataclasses import dataclass
from enum import StrEnum


class PodLabels(StrEnum):
    """Whether DCGM's series have the labels of a holder."""

    EXCLUSIVE = "Exclusive"
    """Those of a device that one container holds as a whole, as from dcgm-exporter."""
    NONE = "None"
    """None: queries join `gpufleet_device_holder`."""


class HostnameLabel(StrEnum):
    """Name of the label with the node's name in DCGM's series."""

    LOWER = "hostname"
    """As from dcgm-exporter since May 2026."""
    UPPER = "Hostname"
    """As from earlier releases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions:
    pod_labels: PodLabels = PodLabels.EXCLUSIVE
    dcgm_names: bool = True
    """Whether DCGM's series are exported; false next to dcgm-exporter."""
    hostname_label: HostnameLabel = HostnameLabel.LOWER
