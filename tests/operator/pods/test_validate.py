"""Invalid templates: each error has the field, the value and the requirement."""

from typing import Any

import pytest

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_api.workload import DeviceMode, WorkloadSpec
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY, PodPolicy
from gpufleet_operator.model.pod_state.device_containers import of_template
from gpufleet_operator.pods.validate import validate_template
from gpufleet_testing.operator import make

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def main(**fields: object) -> dict[str, Any]:
    return {"name": "main", **fields}


def errors(
    template: dict[str, Any], *, resources: Resources = DEFAULTS, policy: PodPolicy = DEFAULT_POLICY, **devices: object
) -> list[str]:
    spec = WorkloadSpec.model_construct(
        template=template, devices=WorkloadSpec.model_fields["devices"].default.model_copy(update=devices)
    )
    return list(validate_template(spec, resources, policy))


def limits(kind: str = "limits", name: str = RESOURCE, amount: object = "1") -> dict[str, Any]:
    return {"resources": {kind: {name: amount}}}


def affinity(*terms: object) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}}}


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "node name": (
        {"nodeName": "n1", "containers": [main()]},
        {},
        "spec.template.spec.nodeName: Forbidden: the node is selected by the operator",
    ),
    "scheduler": (
        {"schedulerName": "volcano", "containers": [main()]},
        {},
        'spec.template.spec.schedulerName: Unsupported value: "volcano": supported values: default-scheduler',
    ),
    "claims": (
        {"resourceClaims": [{"name": "gpu"}], "containers": [main()]},
        {},
        "spec.template.spec.resourceClaims: Forbidden: must be empty: devices of claims cannot be reserved; use spec.",
    ),
    "claims of a container": (
        {"containers": [main(resources={"claims": [{"name": "gpu"}]})]},
        {},
        "spec.template.spec.containers[0].resources.claims: Forbidden: must be empty: devices of claims cannot be",
    ),
    "the resource of another plugin": (
        {"containers": [main(**limits(name="nvidia.com/gpu"))]},
        {},
        (
            "spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]: Forbidden: "
            "matches nvidia.com/* of --forbidden-resources; request devices in spec.devices"
        ),
    ),
    "the resource of another plugin in a request of an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", **limits("requests", name="nvidia.com/mig-1g.5gb")}]},
        {},
        "spec.template.spec.initContainers[0].resources.requests[nvidia.com/mig-1g.5gb]: Forbidden: matches nvidia.com",
    ),
    "the resource of another plugin at pod level": (
        {"resources": {"limits": {"amd.com/gpu": 1}}, "containers": [main()]},
        {},
        "spec.template.spec.resources.limits[amd.com/gpu]: Forbidden: matches amd.com/gpu of --forbidden-resources",
    ),
    "own limit": (
        {"containers": [main(**limits(amount="2"))]},
        {"count": 4},
        (
            'containers[0].resources.limits[gpufleet.dev/gpu]: Invalid value: "2": '
            "must be omitted or equal spec.devices (count 4, mode Exclusive)"
        ),
    ),
    "own request": (
        {"containers": [main(**limits("requests", amount=3))]},
        {},
        "requests[gpufleet.dev/gpu]: Invalid value: 3: must be omitted or equal spec.devices (count 1, mode Exclusive)",
    ),
    "the shared resource with mode Exclusive": (
        {"containers": [main(**limits(name=SHARED_RESOURCE))]},
        {},
        'limits[gpufleet.dev/gpu-shared]: Invalid value: "1": must be omitted or equal spec.devices (count 1, mode Exc',
    ),
    "the whole resource with mode Shared": (
        {"containers": [main(**limits())]},
        {"mode": DeviceMode.SHARED},
        'limits[gpufleet.dev/gpu]: Invalid value: "1": must be omitted or equal spec.devices (count 1, mode Shared)',
    ),
    "the shared resource in a sidecar": (
        {"containers": [main(), {"name": "b", **limits(name=SHARED_RESOURCE)}]},
        {"container": "main", "mode": DeviceMode.SHARED},
        "containers[1].resources.limits[gpufleet.dev/gpu-shared]: Forbidden: only the container of",
    ),
    "unknown container": (
        {"containers": [main()]},
        {"container": "x"},
        'spec.devices.container: Not found: "x": must be one of: main',
    ),
    "init container chosen": (
        {"containers": [main()], "initContainers": [{"name": "i"}]},
        {"container": "i"},
        'spec.devices.container: Not found: "i": must be one of: main',
    ),
    "no container chosen": (
        {"containers": [main(), {"name": "b"}]},
        {},
        "spec.devices.container: Required value: the template has several containers, must be one of: main, b",
    ),
    "devices in an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", **limits()}]},
        {},
        "spec.template.spec.initContainers[0].resources.limits[gpufleet.dev/gpu]: Forbidden: only the container of",
    ),
    "devices in a sidecar": (
        {"containers": [main(), {"name": "b", **limits()}]},
        {"container": "main"},
        "containers[1].resources.limits[gpufleet.dev/gpu]",
    ),
    "devices of the pod": ({"containers": [main()], **limits()}, {}, "spec.template.spec.resources.limits["),
    "visible devices": (
        {"containers": [main(env=[{"name": "A"}, {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}])]},
        {},
        "spec.template.spec.containers[0].env[1].name: Forbidden: NVIDIA_VISIBLE_DEVICES is set by gpufleet",
    ),
    "visible devices in an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", "env": [{"name": "NVIDIA_VISIBLE_DEVICES"}]}]},
        {},
        "initContainers[0].env[0].name",
    ),
    "our environment": (
        {"containers": [main(env=[{"name": "GPUFLEET_X"}])]},
        {},
        "env[0].name: Forbidden: GPUFLEET_X is set by gpufleet",
    ),
    **{
        f"our environment by prefix {prefix}": (
            {"containers": [main(envFrom=[{"configMapRef": {"name": "c"}}, {"prefix": prefix}])]},
            {},
            f'envFrom[1].prefix: Invalid value: "{prefix}": keys with this prefix could override',
        )
        for prefix in ("GPUFLEET_", "GPUFLEET_SHARD_", "GPU", "NVIDIA_", "NVIDIA_VISIBLE_DEVICE", "N")
    },
    "our environment by prefix in an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", "envFrom": [{"prefix": "NVIDIA_VISIBLE_"}]}]},
        {},
        "initContainers[0].envFrom[0].prefix",
    ),
    "host name": (
        {"containers": [main()], "hostname": "own"},
        {},
        "spec.template.spec.hostname: Forbidden: is set by the operator unless spec.network.enableDNSHostnames",
    ),
    "subdomain": (
        {"containers": [main()], "subdomain": "own"},
        {},
        "spec.template.spec.subdomain: Forbidden: is set by",
    ),
    "affinity of nothing": (
        {"containers": [main()], **affinity({}, {})},
        {},
        "nodeSelectorTerms: Invalid value: [{}, {}]: must have a term that is not empty",
    ),
    "affinity without terms": (
        {"containers": [main()], **affinity()},
        {},
        "nodeSelectorTerms: Invalid value: []: must have a term",
    ),
    "no containers": (
        {"containers": []},
        {},
        "spec.template.spec.containers: Required value: must have at least one container",
    ),
    "containers is a map": (
        {"containers": {"name": "main"}},
        {},
        'spec.template.spec.containers: Invalid value: {"name": "main"}: must be a list',
    ),
    "a container is text": ({"containers": ["main"]}, {}, 'containers[0]: Invalid value: "main": must be an object'),
    "a container without name": ({"containers": [{}]}, {}, "containers[0].name: Required value"),
    "a name twice": ({"containers": [main(), main()]}, {}, 'containers[1].name: Duplicate value: "main"'),
    "resources is text": (
        {"containers": [main(resources="lots")]},
        {},
        'containers[0].resources: Invalid value: "lots": must be an object',
    ),
    "an amount that is none": (
        {"containers": [main(**limits("requests", "cpu", "many"))]},
        {},
        'containers[0].resources.requests[cpu]: Invalid value: "many": must be a resource quantity',
    ),
    "an amount that is true": (
        {"containers": [main(**limits(name="cpu", amount=True))]},
        {},
        "limits[cpu]: Invalid value: true: must be a resource quantity",
    ),
    "an amount below 0": (
        {"containers": [main(**limits(name="cpu", amount="-1"))]},
        {},
        'containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0',
    ),
    "limits is a list": (
        {"containers": [main(resources={"limits": ["cpu"]})]},
        {},
        'containers[0].resources.limits: Invalid value: ["cpu"]: must be a map',
    ),
    "an amount of an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", **limits(name="cpu", amount="x")}]},
        {},
        'spec.template.spec.initContainers[0].resources.limits[cpu]: Invalid value: "x": must be a resource quantity',
    ),
    "an amount of the pod": (
        {"containers": [main()], **limits("requests", "cpu", "x")},
        {},
        'spec.template.spec.resources.requests[cpu]: Invalid value: "x": must be a resource quantity',
    ),
    "overhead": (
        {"containers": [main()], "overhead": {"cpu": "x"}},
        {},
        'spec.template.spec.overhead[cpu]: Invalid value: "x": must be a resource quantity',
    ),
    "a gate that is nothing": (
        {"containers": [main()], "schedulingGates": [None]},
        {},
        "spec.template.spec.schedulingGates[0]: Invalid value: null: must be an object",
    ),
    "a gate without name": (
        {"containers": [main()], "schedulingGates": [{}]},
        {},
        "spec.template.spec.schedulingGates[0].name: Required value",
    ),
    "gates are text": (
        {"containers": [main()], "schedulingGates": "x"},
        {},
        'spec.template.spec.schedulingGates: Invalid value: "x": must be a list',
    ),
    "gates are a map": (
        {"containers": [main()], "schedulingGates": {"a": 1}},
        {},
        'schedulingGates: Invalid value: {"a": 1}: must be a list',
    ),
    "a toleration that is nothing": (
        {"containers": [main()], "tolerations": [None]},
        {},
        "spec.template.spec.tolerations[0]: Invalid value: null: must be an object",
    ),
    "a toleration with a number": (
        {"containers": [main()], "tolerations": [{"key": 1}]},
        {},
        "spec.template.spec.tolerations[0].key: Invalid value: 1: must be a string",
    ),
    "a node selector that is a list": (
        {"containers": [main()], "nodeSelector": ["a"]},
        {},
        'spec.template.spec.nodeSelector: Invalid value: ["a"]: must be a map',
    ),
    "a node selector with a number": (
        {"containers": [main()], "nodeSelector": {"a": 1}},
        {},
        "spec.template.spec.nodeSelector[a]: Invalid value: 1: must be a string",
    ),
    "affinity is text": (
        {"containers": [main()], "affinity": "x"},
        {},
        'spec.template.spec.affinity: Invalid value: "x": must be an object',
    ),
    "a term that is nothing": (
        {"containers": [main()], **affinity(None, {"matchFields": [{"key": "k", "operator": "Exists"}]})},
        {},
        "nodeSelectorTerms[0]: Invalid value: null: must be an object",
    ),
    "an expression without key": (
        {"containers": [main()], **affinity({"matchExpressions": [{"operator": "Exists"}]})},
        {},
        "nodeSelectorTerms[0].matchExpressions[0].key: Required value",
    ),
    "expressions are text": (
        {"containers": [main()], **affinity({"matchExpressions": "x"})},
        {},
        'nodeSelectorTerms[0].matchExpressions: Invalid value: "x": must be a list',
    ),
    "values are numbers": (
        {"containers": [main()], **affinity({"matchFields": [{"key": "k", "operator": "In", "values": [1]}]})},
        {},
        "nodeSelectorTerms[0].matchFields[0].values: Invalid value: [1]: must be a list of strings",
    ),
    "a name that is too long": (
        {"containers": [{"name": "m" * 64}]},
        {},
        'spec.template.spec.containers[0].name: Invalid value: "mmm',
    ),
    "a name in capitals": (
        {"containers": [{"name": "Main"}]},
        {},
        'containers[0].name: Invalid value: "Main": must be a lowercase RFC 1123 label',
    ),
    "spec is text": ("busybox", {}, 'spec.template.spec: Invalid value: "busybox": must be a pod spec'),
}


@pytest.mark.parametrize(("spec", "devices", "message"), BAD.values(), ids=BAD.keys())
def test_invalid_template(spec: object, devices: dict[str, Any], message: str) -> None:
    found = errors({"spec": spec}, **devices)

    assert any(message in one for one in found), found


def test_reserved_labels_and_annotations_are_forbidden() -> None:
    found = errors({"metadata": {"annotations": {"gpufleet.dev/assignment": "x"}}, "spec": {"containers": [main()]}})

    (one,) = found
    assert one.startswith(
        "spec.template.metadata.annotations[gpufleet.dev/assignment]: Forbidden: gpufleet.dev/* is reserved"
    )


GOOD: dict[str, tuple[Any, dict[str, Any]]] = {
    "one container": ({"containers": [main()]}, {}),
    "the same limit": ({"containers": [main(**limits(amount=2))]}, {"count": 2}),
    "the same limit of the shared resource": (
        {"containers": [main(**limits(name=SHARED_RESOURCE, amount=2))]},
        {"count": 2, "mode": DeviceMode.SHARED},
    ),
    "other resources": ({"containers": [main(**limits(name="example.com/nic"))]}, {}),
    "an affinity with something in it": (
        {"containers": [main()], **affinity({}, {"matchFields": [{"key": "k", "operator": "Exists"}]})},
        {},
    ),
    "amounts of every form": (
        {
            "containers": [
                main(resources={"limits": {"cpu": None, "memory": "1e9999"}, "requests": {"cpu": 0.5, "memory": 7}})
            ],
            "overhead": None,
            "tolerations": None,
            "affinity": None,
            "nodeSelector": None,
            "schedulingGates": None,
        },
        {},
    ),
    "other gates": ({"containers": [main()], "schedulingGates": [{"name": "example.com/quota"}]}, {}),
    "an environment from elsewhere, see decision 8": (
        {"containers": [main(envFrom=[{"secretRef": {"name": "s"}}, {"prefix": "APP_"}, {"prefix": "NVIDIA_X"}])]},
        {},
    ),
    "a chosen container": ({"containers": [main(), {"name": "b"}]}, {"container": "b"}),
}


@pytest.mark.parametrize(("spec", "devices"), GOOD.values(), ids=GOOD.keys())
def test_valid_template(spec: object, devices: dict[str, Any]) -> None:
    assert errors({"spec": spec}, **devices) == []


def test_mode_shared_is_forbidden_where_sharing_is_disabled() -> None:
    found = errors({"spec": {"containers": [main()]}}, resources=Resources(shared=""), mode=DeviceMode.SHARED)

    assert found == ["spec.devices.mode: Forbidden: mode Shared is disabled in this cluster"]


def test_a_configured_shared_resource_is_a_device_resource() -> None:
    spec = {"containers": [main(), {"name": "b", **limits(name="example.com/part")}]}

    (found,) = errors({"spec": spec}, resources=Resources(shared="example.com/part"), container="main")

    assert found.startswith("spec.template.spec.containers[1].resources.limits[example.com/part]: Forbidden: only the")


def test_the_only_container_gets_the_devices() -> None:
    assert of_template(make.spec(make.workload())) == {"main": 1}


def test_policy_permits_what_the_cluster_has() -> None:
    policy = PodPolicy(forbidden_resources=("example.com/*",), schedulers=("default-scheduler", "volcano"))
    resources = {"limits": {"amd.com/gpu": "1", "example.com.org/gpu": "1"}}
    template = {"spec": {"schedulerName": "volcano", "containers": [main(resources=resources)]}}
    assert errors(template, policy=policy) == []


def test_own_resource_may_have_the_name_of_a_vendor() -> None:
    template = {"spec": {"containers": [main(**limits(name="nvidia.com/gpu"))]}}
    assert errors(template, resources=Resources(whole="nvidia.com/gpu")) == []
