"""A scrape configuration from a ServiceMonitor, with the relabelings that the Prometheus Operator generates.

Debian builds Prometheus without the discovery of Kubernetes. The targets are found here, with the labels that this
discovery gives them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpufleet_e2e.support.api import NAMESPACES, Api, pods

JsonObject = dict[str, Any]

_NAMES = {"sourceLabels": "source_labels", "targetLabel": "target_label"}


def discovered_targets(api: Api, namespace: str) -> list[JsonObject]:
    """Returns the ports of the pods of all Services of a namespace, as the role `endpoints` does."""
    services = api.list(f"{NAMESPACES}/{namespace}/services")
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": _labels(service, pod, container, name),
        }
        for service in services
        for pod in api.list(pods(namespace))
        if service["spec"]["selector"].items() <= pod["metadata"].get("labels", {}).items() and "podIP" in pod["status"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        for name in [one["name"] for one in service["spec"]["ports"] if one["targetPort"] == port["name"]]
    ]


def _labels(service: JsonObject, pod: JsonObject, container: JsonObject, port: str) -> dict[str, str]:
    prefix = "__meta_kubernetes_"
    found = {
        f"{prefix}namespace": pod["metadata"]["namespace"],
        f"{prefix}service_name": service["metadata"]["name"],
        f"{prefix}endpoint_port_name": port,
        f"{prefix}pod_name": pod["metadata"]["name"],
        f"{prefix}pod_container_name": container["name"],
        f"{prefix}pod_node_name": pod["spec"]["nodeName"],
        f"{prefix}pod_phase": pod["status"]["phase"],
    }
    for label, value in service["metadata"]["labels"].items():
        found[f"{prefix}service_label_{_name(label)}"] = value
        found[f"{prefix}service_labelpresent_{_name(label)}"] = "true"
    return found


def scrape_config(monitor: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> JsonObject:
    """Converts a ServiceMonitor with one endpoint.

    Args:
        monitor: The object.
        targets: All targets of its namespaces.
    """
    meta, spec = monitor["metadata"], monitor["spec"]
    (endpoint,) = spec["endpoints"]
    config: JsonObject = {
        "job_name": f"serviceMonitor/{meta['namespace']}/{meta['name']}/0",
        "honor_labels": endpoint.get("honorLabels", False),
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint.get("scrapeTimeout", endpoint["interval"]),
        "static_configs": list(targets),
        "relabel_configs": [*_generated(spec, endpoint), *map(_relabeling, endpoint.get("relabelings", ()))],
    }
    if rules := endpoint.get("metricRelabelings"):
        config["metric_relabel_configs"] = [_relabeling(rule) for rule in rules]
    return config


def _generated(spec: Mapping[str, Any], endpoint: Mapping[str, Any]) -> Iterator[JsonObject]:
    for label, value in spec["selector"]["matchLabels"].items():
        sources = [f"__meta_kubernetes_service_{part}_{_name(label)}" for part in ("label", "labelpresent")]
        yield {"action": "keep", "source_labels": sources, "regex": f"({value});true"}
    yield {"action": "keep", "source_labels": ["__meta_kubernetes_endpoint_port_name"], "regex": endpoint["port"]}
    yield {"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"}
    for source, target in (
        ("namespace", "namespace"),
        ("service_name", "service"),
        ("pod_name", "pod"),
        ("pod_container_name", "container"),
        ("service_name", "job"),
        ("endpoint_port_name", "endpoint"),
    ):
        yield {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target}


def _relabeling(rule: Mapping[str, Any]) -> JsonObject:
    return {_NAMES.get(name, name): value for name, value in rule.items()}


def _name(label: str) -> str:
    """Returns a label of Kubernetes as part of a label of Prometheus."""
    return label.translate(str.maketrans("./-", "___"))
