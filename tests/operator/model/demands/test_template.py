"""Which containers are runs of one template."""

import re

import pytest

from gpufleet_operator.model.demands.template import TemplateKey, template_key, template_of, without_tag
from gpufleet_operator.model.pod_state.owner import PodOwner
from gpufleet_testing.operator import make


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        pytest.param("GPUWorkload", "train", ("GPUWorkload", "train"), id="a name of its own"),
        pytest.param("GPUWorkload", "train-x7k2p", ("GPUWorkload", "train"), id="generateName"),
        pytest.param("GPUWorkload", "train-small", ("GPUWorkload", "train-small"), id="generated names have no vowels"),
        pytest.param("GPUWorkload", "llama-70b", ("GPUWorkload", "llama-70b"), id="generated names have five letters"),
        pytest.param("ReplicaSet", "web-7d4b9c6f5d", ("Deployment", "web"), id="a Deployment's"),
        pytest.param("ReplicaSet", "web", ("ReplicaSet", "web"), id="a ReplicaSet without Deployment"),
        pytest.param("Job", "nightly-28391820", ("CronJob", "nightly"), id="a CronJob's"),
        pytest.param("Job", "train-x7k2p", ("Job", "train"), id="a generated Job"),
        pytest.param("StatefulSet", "infer", ("StatefulSet", "infer"), id="StatefulSet"),
    ],
)
def test_owner_is_named_without_what_is_added_for_a_run(kind: str, name: str, expected: tuple[str, str]) -> None:
    found = template_key("ml", kind, name, "main", "busybox")
    assert (found.owner_kind, found.owner) == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("busybox", "busybox"),
        ("busybox:1.36", "busybox"),
        ("registry:5000/team/train", "registry:5000/team/train"),
        ("registry:5000/team/train:v1", "registry:5000/team/train"),
        ("team/train:v1@sha256:0123", "team/train"),
        ("", ""),
    ],
)
def test_image_is_named_without_tag_and_digest(image: str, expected: str) -> None:
    assert without_tag(image) == expected


def test_pods_of_a_workload_are_its_runs_whatever_their_names() -> None:
    images = (("main", "team/train:v2"),)
    pods = [make.pod("train", number, images=images, workload_label="train-x7k2p") for number in (0, 1)]
    assert {template_of(pod, "main") for pod in pods} == {
        TemplateKey("ml", "GPUWorkload", "train", "main", "team/train")
    }


def test_pods_of_other_owners_and_of_none_have_their_own_keys() -> None:
    owned = make.pod("any", workload_uid="", owner=PodOwner("ReplicaSet", "web-7d4b9c6f5d", "uid-rs", "apps"))
    alone = make.pod("any", workload_uid="", suffix="x7k2p")
    assert template_of(owned, "main") == TemplateKey("ml", "Deployment", "web", "main", "")
    assert template_of(alone, "main") == TemplateKey("ml", "Pod", "any-0", "main", "")


def test_object_names_differ_and_are_valid() -> None:
    keys = [
        template_key("ml", "GPUWorkload", owner, container, image)
        for owner in ("train", "t" * 253, "a.b")
        for container in ("main", "side")
        for image in ("one", "two")
    ]
    names = {key.name for key in keys}
    assert len(names) == len(keys)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) and len(name) < 254 for name in names)
