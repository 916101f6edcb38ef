"""Templates that would break a reservation: the operator and `gpufleet simulate` reject them with the same words."""

from pathlib import Path
from typing import Any

import yaml

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testing.cli.runner import run_cli

POD = "spec.template.spec"
NOT_HERE = "of --forbidden-resources; request devices in spec.devices"


def _limits(name: str, kind: str = "limits") -> dict[str, Any]:
    return {"resources": {kind: {name: "1"}}}


REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "vendor": (
        pod_spec(container(**_limits("nvidia.com/gpu"))),
        f"{POD}.containers[0].resources.limits[nvidia.com/gpu]: Forbidden: matches nvidia.com/* {NOT_HERE}",
    ),
    "partition": (
        pod_spec(container(), initContainers=[container("first", **_limits("nvidia.com/mig-1g.10gb"))]),
        f"{POD}.initContainers[0].resources.limits[nvidia.com/mig-1g.10gb]: Forbidden: matches nvidia.com/* {NOT_HERE}",
    ),
    "amd": (
        pod_spec(container(**_limits("amd.com/gpu", "requests"))),
        f"{POD}.containers[0].resources.requests[amd.com/gpu]: Forbidden: matches amd.com/gpu {NOT_HERE}",
    ),
    "scheduler": (
        pod_spec(schedulerName="volcano"),
        f'{POD}.schedulerName: Unsupported value: "volcano": supported values: default-scheduler',
    ),
}
"""Pod spec, and the message."""


def test_template_that_breaks_a_reservation_is_rejected(namespace: TestNamespace, fleet: Fleet, tmp_path: Path) -> None:
    """Mechanism: such a template is a condition, before a pod is created or a device reserved."""
    claims = pod_spec(resourceClaims=[{"name": "gpu", "resourceClaimName": "mine"}])
    response = fleet.api.try_create(workloads(namespace.name), gpuworkload("claims", template=claims))
    words = f"{POD}.resourceClaims: Forbidden: must be empty: devices of claims cannot be reserved"
    assert words in response.message, "claims are rejected by the apiserver"
    for name, (template, _) in REJECTED.items():
        namespace.apply(gpuworkload(name, template=template))
    saved = tmp_path / "fleet.yaml"
    saved.write_text(yaml.safe_dump_all(fleet.telemetry(node) for node in fleet.nodes), encoding="utf-8")
    for name, (template, words) in REJECTED.items():
        message = namespace.wait_condition(name, "Stalled", "True", "InvalidTemplate")
        assert message.startswith(words), message
        assert not namespace.all_pods(name)
        assert objects.condition(namespace.workload(name), "Ready")["status"] == "False"
        manifest = tmp_path / f"{name}.yaml"
        manifest.write_text(yaml.safe_dump(gpuworkload(name, template=template)), encoding="utf-8")
        simulated = run_cli("simulate", "-f", manifest, "--from", saved)
        assert (simulated.code, words in simulated.err) == (2, True), simulated
