"""The names and labels of all series that agent and operator export, from their registries."""

from gpufleet_testing.reference import metrics

_DEVICE_LABELS = frozenset({"gpu", "UUID", "pci_bus_id", "device", "modelName", "hostname", "DCGM_FI_DRIVER_VERSION"})
_PROCESS = ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds")


def series() -> dict[str, frozenset[str]]:
    """Returns the labels of each series by its name; a histogram has three names."""
    found: dict[str, frozenset[str]] = {f"process_{name}": frozenset() for name in _PROCESS}
    found |= {metric.name: _DEVICE_LABELS for metric in metrics.of_devices()}
    for metric in (*metrics.of_agent(), *metrics.of_operator()):
        labels = frozenset(metric.labels)
        if metric.kind == "histogram":
            found |= {f"{metric.name}_{part}": labels for part in ("sum", "count")}
            found[f"{metric.name}_bucket"] = labels | {"le"}
        else:
            found[metric.name] = labels
    return found
