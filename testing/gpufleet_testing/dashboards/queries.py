"""Parts of queries that several dashboards use.

A series of a device can come from the agent or from dcgm-exporter, with either name of the label of the node, and twice
during a restart. So `of_devices` takes the maximum of each UUID and adds node, index and model from the agent's series.
"""

from gpufleet_testing.dashboards.layout import Variable

CLUSTER = 'cluster=~"$cluster"'
FLEET = f'{CLUSTER},node=~"$node",model=~"$model"'
"""Labels of gpufleet_operator_devices."""

INFO = (
    "max by (cluster, UUID, hostname, gpu, model) "
    f'(gpufleet_device_info{{{CLUSTER},hostname=~"$node",model=~"$model"}})'
)
AGENT_JOB = 'job=~"(.+/)?gpufleet-agent.*"'
OPERATOR_JOB = 'job=~"(.+/)?gpufleet-operator.*"'

VARIABLES = {
    "cluster": Variable("cluster", "Cluster", "label_values(gpufleet_operator_build_info, cluster)"),
    "namespace": Variable("namespace", "Namespace", f"label_values(gpufleet_device_holder{{{CLUSTER}}}, namespace)"),
    "waiting": Variable(
        "namespace", "Namespace", f"label_values(gpufleet_operator_workload_waiting_seconds{{{CLUSTER}}}, namespace)"
    ),
    "model": Variable("model", "Model", f"label_values(gpufleet_device_info{{{CLUSTER}}}, model)"),
    "node": Variable("node", "Node", f"label_values(gpufleet_device_info{{{CLUSTER}}}, hostname)"),
    "device": Variable(
        "device", "Device", f'label_values(gpufleet_device_info{{{CLUSTER},hostname=~"$node"}}, UUID)', multi=False
    ),
}


def devices(availability: str = "", occupation: str = "") -> str:
    """Returns the selector of the operator's count of devices."""
    more = f',availability="{availability}"' if availability else ""
    more += f',occupation="{occupation}"' if occupation else ""
    return f"gpufleet_operator_devices{{{FLEET}{more}}}"


def total(selector: str) -> str:
    """Returns the sum of series; 0 if there are none."""
    return f"sum({selector}) or vector(0)"


def quantile(part: float, buckets: str) -> str:
    """Returns a quantile of a histogram.

    Args:
        part: Between 0 and 1.
        buckets: Selector of its buckets.
    """
    return f"histogram_quantile({part}, sum by (le) (rate({buckets}[$__rate_interval])))"


def of_devices(metric: str, window: str = "") -> str:
    """Returns a metric of devices with the labels of the device; with `window`, its maximum over that time."""
    series = f"{metric}{{{CLUSTER}}}"
    if window:
        series = f"max_over_time({series}[{window}])"
    return f"max by (cluster, UUID) ({series}) * on (cluster, UUID) group_left (hostname, gpu, model) {INFO}"


def holders(metric: str = "gpufleet_device_holder") -> str:
    """Returns a metric of holders, without those of other models."""
    labels = f'{CLUSTER},hostname=~"$node",namespace=~"$namespace"'
    return (
        f"max by (cluster, hostname, UUID, namespace, pod, container) ({metric}{{{labels}}}) "
        f"* on (cluster, UUID) group_left (gpu, model) max by (cluster, UUID, gpu, model) ({INFO})"
    )


def with_holders(metric: str) -> str:
    """Returns a metric of devices once for each container that holds the device, with the labels of the container."""
    return f"(0 * {holders()}) + on (cluster, UUID) group_left max by (cluster, UUID) ({metric}{{{CLUSTER}}})"


IDLE = (
    f"{holders()} and on (cluster, UUID) "
    f"max by (cluster, UUID) (max_over_time(DCGM_FI_DEV_GPU_UTIL{{{CLUSTER}}}[30m])) < 1"
)
"""Containers that hold a device that nothing has used in 30 minutes."""
