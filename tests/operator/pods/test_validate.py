"""Templates that no pod can be made from: each problem names the field and the value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_api.workload import DeviceMode, WorkloadSpec
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.pods.validate import device_container, problems
from gpufleet_testing.operator import make

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def main(**fields: Any) -> dict[str, Any]:
    return {"name": "main", **fields}


def said(template: Any, *, resources: Resources = DEFAULTS, **devices: Any) -> list[str]:
    spec = WorkloadSpec.model_construct(
        template=template, devices=WorkloadSpec.model_fields["devices"].default.model_copy(update=devices)
    )
    return [str(p) for p in problems(spec, resources)]


def limits(kind: str = "limits", name: str = RESOURCE, amount: Any = "1") -> dict[str, Any]:
    return {"resources": {kind: {name: amount}}}


def affinity(*terms: Any) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}}}


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "node name": ({"nodeName": "n1", "containers": [main()]}, {}, "spec.template.spec.nodeName: is 'n1'"),
    "own limit": (
        {"containers": [main(**limits(amount="2"))]},
        {"count": 4},
        "containers[0].resources.limits[gpufleet.dev/gpu]: is '2', but spec.devices asks for 4 of mode Exclusive",
    ),
    "own request": (
        {"containers": [main(**limits("requests", amount=3))]},
        {},
        "requests[gpufleet.dev/gpu]: is 3, but",
    ),
    "the shared resource with mode Exclusive": (
        {"containers": [main(**limits(name=SHARED_RESOURCE))]},
        {},
        "limits[gpufleet.dev/gpu-shared]: is '1', but spec.devices asks for 1 of mode Exclusive",
    ),
    "the whole resource with mode Shared": (
        {"containers": [main(**limits())]},
        {"mode": DeviceMode.SHARED},
        "limits[gpufleet.dev/gpu]: is '1', but spec.devices asks for 1 of mode Shared",
    ),
    "the shared resource in a sidecar": (
        {"containers": [main(), {"name": "b", **limits(name=SHARED_RESOURCE)}]},
        {"container": "main", "mode": DeviceMode.SHARED},
        "containers[1].resources.limits[gpufleet.dev/gpu-shared]: is '1'; only the container of",
    ),
    "unknown container": ({"containers": [main()]}, {"container": "x"}, "spec.devices.container: is 'x', which is no"),
    "init container chosen": (
        {"containers": [main()], "initContainers": [{"name": "i"}]},
        {"container": "i"},
        "spec.devices.container: is 'i', which is no app container",
    ),
    "no container chosen": ({"containers": [main(), {"name": "b"}]}, {}, "spec.devices.container: is missing"),
    "devices in an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", **limits()}]},
        {},
        "spec.template.spec.initContainers[0].resources.limits[gpufleet.dev/gpu]: is '1'; only the container of",
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
        "spec.template.spec.containers[0].env[1].name: is NVIDIA_VISIBLE_DEVICES, which would override",
    ),
    "visible devices in an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", "env": [{"name": "NVIDIA_VISIBLE_DEVICES"}]}]},
        {},
        "initContainers[0].env[0].name",
    ),
    "our environment": ({"containers": [main(env=[{"name": "GPUFLEET_X"}])]}, {}, "env[0].name: is GPUFLEET_X"),
    **{
        f"our environment by prefix {prefix}": (
            {"containers": [main(envFrom=[{"configMapRef": {"name": "c"}}, {"prefix": prefix}])]},
            {},
            f"envFrom[1].prefix: is {prefix}, by which a key could override",
        )
        for prefix in ("GPUFLEET_", "GPUFLEET_SHARD_", "GPU", "NVIDIA_", "NVIDIA_VISIBLE_DEVICE", "N")
    },
    "our environment by prefix in an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", "envFrom": [{"prefix": "NVIDIA_VISIBLE_"}]}]},
        {},
        "initContainers[0].envFrom[0].prefix",
    ),
    "affinity of nothing": (
        {"containers": [main()], **affinity({}, {})},
        {},
        "nodeSelectorTerms: is [{}, {}]: only empty",
    ),
    "affinity without terms": ({"containers": [main()], **affinity()}, {}, "nodeSelectorTerms: is []"),
    "no containers": ({"containers": []}, {}, "spec.template.spec.containers: must name at least one container, is []"),
    "containers is a map": ({"containers": {"name": "main"}}, {}, "spec.template.spec.containers: must be a list"),
    "a container is text": ({"containers": ["main"]}, {}, "containers[0]: must be a container, is 'main'"),
    "a container without name": ({"containers": [{}]}, {}, "containers[0].name: must be a name, is None"),
    "a name twice": ({"containers": [main(), main()]}, {}, "containers[1].name: 'main' stands twice"),
    "resources is text": (
        {"containers": [main(resources="lots")]},
        {},
        "containers[0].resources: must be a map, is 'lots'",
    ),
    "an amount that is none": (
        {"containers": [main(**limits("requests", "cpu", "many"))]},
        {},
        "containers[0].resources.requests[cpu]: is 'many', which is not a resource quantity",
    ),
    "an amount that is true": ({"containers": [main(**limits(name="cpu", amount=True))]}, {}, "limits[cpu]: is True"),
    "an amount below 0": (
        {"containers": [main(**limits(name="cpu", amount="-1"))]},
        {},
        "containers[0].resources.limits[cpu]: is '-1', must be 0 or more",
    ),
    "limits is a list": (
        {"containers": [main(resources={"limits": ["cpu"]})]},
        {},
        "containers[0].resources.limits: must be a map, is ['cpu']",
    ),
    "an amount of an init container": (
        {"containers": [main()], "initContainers": [{"name": "i", **limits(name="cpu", amount="x")}]},
        {},
        "spec.template.spec.initContainers[0].resources.limits[cpu]: is 'x'",
    ),
    "an amount of the pod": (
        {"containers": [main()], **limits("requests", "cpu", "x")},
        {},
        "spec.template.spec.resources.requests[cpu]: is 'x'",
    ),
    "overhead": ({"containers": [main()], "overhead": {"cpu": "x"}}, {}, "spec.template.spec.overhead[cpu]: is 'x'"),
    "a gate that is nothing": (
        {"containers": [main()], "schedulingGates": [None]},
        {},
        "spec.template.spec.schedulingGates[0]: must be a map, is None",
    ),
    "a gate without name": (
        {"containers": [main()], "schedulingGates": [{}]},
        {},
        "spec.template.spec.schedulingGates[0].name: must be a name, is None",
    ),
    "gates are text": (
        {"containers": [main()], "schedulingGates": "x"},
        {},
        "spec.template.spec.schedulingGates: must be a list, is 'x'",
    ),
    "gates are a map": ({"containers": [main()], "schedulingGates": {"a": 1}}, {}, "schedulingGates: must be a list"),
    "a toleration that is nothing": (
        {"containers": [main()], "tolerations": [None]},
        {},
        "spec.template.spec.tolerations[0]: must be a map, is None",
    ),
    "a toleration with a number": (
        {"containers": [main()], "tolerations": [{"key": 1}]},
        {},
        "spec.template.spec.tolerations[0].key: must be a text, is 1",
    ),
    "a node selector that is a list": (
        {"containers": [main()], "nodeSelector": ["a"]},
        {},
        "spec.template.spec.nodeSelector: must be a map, is ['a']",
    ),
    "a node selector with a number": (
        {"containers": [main()], "nodeSelector": {"a": 1}},
        {},
        "spec.template.spec.nodeSelector[a]: must be a text, is 1",
    ),
    "affinity is text": ({"containers": [main()], "affinity": "x"}, {}, "spec.template.spec.affinity: must be a map"),
    "a term that is nothing": (
        {"containers": [main()], **affinity(None, {"matchFields": [{"key": "k", "operator": "Exists"}]})},
        {},
        "nodeSelectorTerms[0]: must be a map, is None",
    ),
    "an expression without key": (
        {"containers": [main()], **affinity({"matchExpressions": [{"operator": "Exists"}]})},
        {},
        "nodeSelectorTerms[0].matchExpressions[0].key: must be a text, is None",
    ),
    "expressions are text": (
        {"containers": [main()], **affinity({"matchExpressions": "x"})},
        {},
        "nodeSelectorTerms[0].matchExpressions: must be a list, is 'x'",
    ),
    "values are numbers": (
        {"containers": [main()], **affinity({"matchFields": [{"key": "k", "operator": "In", "values": [1]}]})},
        {},
        "nodeSelectorTerms[0].matchFields[0].values: must be a list of texts, is [1]",
    ),
    "a name that is too long": (
        {"containers": [{"name": "m" * 64}]},
        {},
        "spec.template.spec.containers[0].name: is 'mmm",
    ),
    "a name in capitals": ({"containers": [{"name": "Main"}]}, {}, "containers[0].name: is 'Main'; a name has up to"),
    "spec is text": ("busybox", {}, "spec.template.spec: must be a pod spec, is 'busybox'"),
}


@pytest.mark.parametrize(("spec", "devices", "message"), BAD.values(), ids=BAD.keys())
def test_problem(spec: Any, devices: dict[str, Any], message: str) -> None:
    found = said({"spec": spec}, **devices)

    assert any(message in one for one in found), found


def test_our_own_labels_and_annotations_are_not_the_users_to_set() -> None:
    found = said({"metadata": {"annotations": {"gpufleet.dev/assignment": "x"}}, "spec": {"containers": [main()]}})

    (one,) = found
    assert one.startswith("spec.template.metadata.annotations: sets gpufleet.dev/assignment; gpufleet.dev/* is")


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
def test_no_problem(spec: Any, devices: dict[str, Any]) -> None:
    assert said({"spec": spec}, **devices) == []


def test_sharing_that_is_switched_off_is_told() -> None:
    found = said({"spec": {"containers": [main()]}}, resources=Resources(shared=""), mode=DeviceMode.SHARED)

    assert found == ["spec.devices.mode: is Shared, but sharing is switched off for this cluster"]


def test_a_shared_resource_of_another_name_is_ours_too() -> None:
    spec = {"containers": [main(), {"name": "b", **limits(name="example.com/part")}]}

    (found,) = said({"spec": spec}, resources=Resources(shared="example.com/part"), container="main")

    assert found.startswith("spec.template.spec.containers[1].resources.limits[example.com/part]: is '1'; only the")


def test_the_only_container_is_chosen_by_itself() -> None:
    assert device_container(make.spec(make.workload())) == "main"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "spec",
                    "metadata",
                    "containers",
                    "initContainers",
                    "name",
                    "env",
                    "envFrom",
                    "resources",
                    "limits",
                    "affinity",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_stands_in_the_template_is_a_message_and_not_a_crash(template: Any) -> None:
    said({"spec": template, "metadata": template})
