"""Pods that are built from a template, and the patch that releases them."""

import json
from typing import Any, Unpack

import jsonpatch
import pytest

from gpufleet_api.names import ASSIGNMENT_ANNOTATION, RESOURCE, SCHEDULING_GATE, SHARED_RESOURCE
from gpufleet_operator.cache import decode_pod
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_operator.pods import build as podbuild
from gpufleet_operator.pods import release
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import WorkloadSpecFields

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def build(template: object, **spec: Unpack[WorkloadSpecFields]) -> dict[str, Any]:
    workload = make.workload(template=template, **spec)
    return podbuild.build(workload, make.spec(workload), 3, "train-3-x", DEFAULTS)


class TestBuild:
    def test_mode_shared_requests_the_shared_resource(self) -> None:
        devices = {"count": 2, "mode": "Shared", "memoryMiB": 1000}
        body = build({"spec": {"containers": [{"name": "a"}]}}, devices=devices)

        assert body["spec"]["containers"][0]["resources"] == {"limits": {SHARED_RESOURCE: "2"}}

    def test_the_chosen_container_gets_the_devices(self) -> None:
        containers = [{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}]

        body = build({"spec": {"containers": containers}}, devices={"count": 4, "container": "a"})

        assert body["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1", RESOURCE: "4"}}
        assert "resources" not in body["spec"]["containers"][1]

    def test_the_gate_is_added_to_those_of_the_template(self) -> None:
        gates = [{"name": SCHEDULING_GATE}, {"name": "example.com/quota"}]

        body = build({"spec": {"containers": [{"name": "a"}], "schedulingGates": gates}})

        assert [g["name"] for g in body["spec"]["schedulingGates"]] == ["example.com/quota", SCHEDULING_GATE]

    def test_taints_of_gpu_nodes_are_tolerated(self) -> None:
        own = {"key": "team", "operator": "Exists"}
        body = build({"spec": {"containers": [{"name": "a"}], "tolerations": [own]}})

        added = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert body["spec"]["tolerations"] == [own, added]
        assert build({"spec": body["spec"]})["spec"]["tolerations"] == [own, added]

    def test_owner_and_labels(self) -> None:
        body = build({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a"}]}})

        assert body["metadata"]["labels"] == {
            "app": "x",
            "app.kubernetes.io/name": "train",
            "app.kubernetes.io/instance": "train",
            "app.kubernetes.io/managed-by": "gpufleet-operator",
            "apps.kubernetes.io/pod-index": "3",
            "gpufleet.dev/workload": "train",
            "gpufleet.dev/replica": "3",
            "gpufleet.dev/attempt": "0",
            "gpufleet.dev/template-hash": "c2b5fbbe51",
        }
        assert body["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "gpufleet.dev/v1alpha1",
                "kind": "GPUWorkload",
                "name": "train",
                "uid": "uid-train",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]

    def test_template_names_the_application_but_not_the_replica(self) -> None:
        given = {"app.kubernetes.io/name": "llm", "gpufleet.dev/replica": "9", "apps.kubernetes.io/pod-index": "9"}

        labels = build({"metadata": {"labels": given}, "spec": {"containers": [{"name": "a"}]}})["metadata"]["labels"]

        assert labels["app.kubernetes.io/name"] == "llm"
        assert (labels["gpufleet.dev/replica"], labels["apps.kubernetes.io/pod-index"]) == ("3", "3")

    def test_pod_has_a_host_name_and_every_container_the_leader(self) -> None:
        env = [{"name": "RENDEZVOUS", "value": "$(GPUFLEET_LEADER_ADDRESS):29500"}]

        body = build(
            {"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a", "env": env}]}},
            network={"enableDNSHostnames": True},
        )["spec"]

        assert (body["hostname"], body["subdomain"]) == ("train-3", "train")
        values = {
            "GPUFLEET_REPLICA": "3",
            "GPUFLEET_REPLICAS": "1",
            "GPUFLEET_ATTEMPT": "0",
            "GPUFLEET_LEADER_ADDRESS": "train-0.train.ml.svc",
        }
        own = [{"name": name, "value": value} for name, value in values.items()]
        assert body["initContainers"] == [{"name": "i", "env": own}]
        assert body["containers"][0]["env"] == [*own, *env]

    def test_pod_has_no_host_name_without_dns(self) -> None:
        template = {"spec": {"hostname": "own", "subdomain": "own", "containers": [{"name": "a"}]}}

        body = build(template, network={"enableDNSHostnames": False})["spec"]

        assert (body["hostname"], body["subdomain"]) == ("own", "own")
        names = [entry["name"] for entry in body["containers"][0]["env"]]
        assert names == ["GPUFLEET_REPLICA", "GPUFLEET_REPLICAS", "GPUFLEET_ATTEMPT"]

    def test_tracking_labels_of_gitops_tools_are_not_copied(self) -> None:
        marks = {
            "argocd.argoproj.io/tracking-id": "x",
            "kustomize.toolkit.fluxcd.io/name": "x",
            "kopf.zalando.org/last": "x",
            "kubectl.kubernetes.io/last-applied-configuration": "x",
            "kubectl.kubernetes.io/default-container": "a",
        }

        body = build({"metadata": {"annotations": marks}, "spec": {"containers": [{"name": "a"}]}})

        assert set(body["metadata"]["annotations"]) == {"kubectl.kubernetes.io/default-container"}

    def test_the_template_is_not_modified(self) -> None:
        template = {"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]}}
        before = json.dumps(template)

        build(template)

        assert json.dumps(template) == before


class TestName:
    def test_contains_workload_and_replica_and_differs_by_seed(self) -> None:
        one, two = (podbuild.pod_name("train", 3, seed) for seed in ("a", "b"))

        assert one != two
        assert one.startswith("train-3-")

    @pytest.mark.parametrize("name", ["a" * 253, "a" * 50 + "." + "b" * 12, "x"])
    def test_fits_into_a_host_name(self, name: str) -> None:
        found = podbuild.pod_name(name, 1023, "seed")

        assert len(found) <= 63
        assert found[0].isalnum()
        assert found[-1].isalnum()
        assert ".-" not in found


def body(
    affinity: object = None, annotations: object = None, gates: tuple[str, ...] = (SCHEDULING_GATE,)
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metadata": {
            "name": "train-0-a",
            "namespace": "ml",
            "uid": "uid-1",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"gpufleet.dev/replica": "0"},
        },
        "spec": {"containers": [{"name": "main"}], "schedulingGates": [{"name": g} for g in gates]},
    }
    if affinity is not None:
        found["spec"]["affinity"] = affinity
    if annotations is not None:
        found["metadata"]["annotations"] = annotations
    return found


PIN = {"key": "metadata.name", "operator": "In", "values": ["node-1"]}
GPU_NODES = {"key": "gpu", "operator": "Exists"}
OWN_FIELD = {"key": "metadata.name", "operator": "NotIn", "values": ["node-9"]}

AFFINITIES: dict[str, tuple[Any, list[Any]]] = {
    "none": (None, [{"matchFields": [PIN]}]),
    "empty": ({}, [{"matchFields": [PIN]}]),
    "of pods": ({"podAntiAffinity": {}}, [{"matchFields": [PIN]}]),
    "preferred only": (
        {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        [{"matchFields": [PIN]}],
    ),
    "each term gets the pin, an empty one stays empty": (
        {
            "nodeAffinity": {
                REQUIRED: {
                    "nodeSelectorTerms": [{"matchExpressions": [GPU_NODES]}, {}, {"matchFields": [OWN_FIELD]}],
                }
            }
        },
        [{"matchExpressions": [GPU_NODES], "matchFields": [PIN]}, {}, {"matchFields": [OWN_FIELD, PIN]}],
    ),
}


class TestRelease:
    @pytest.mark.parametrize(("affinity", "terms"), AFFINITIES.values(), ids=AFFINITIES.keys())
    def test_pins_and_removes_the_gate_in_one_patch(self, affinity: object, terms: list[Any]) -> None:
        pod = decode_pod.pod(body(affinity))
        patch = release.release(pod, "node-1", make.assignment(make.pod(), "GPU-1-0"))

        changed = jsonpatch.apply_patch(body(affinity), [dict(op) for op in patch])

        assert changed["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] == terms
        assert changed["spec"]["schedulingGates"] == []
        assert decode_pod.pod(changed).pinned == "node-1"
        assert decode_pod.pod(changed).target_node == "node-1"
        note = json.loads(changed["metadata"]["annotations"][ASSIGNMENT_ANNOTATION])
        assert note == {"node": "node-1", "container": "main", "devices": ["GPU-1-0"]}

    def test_keeps_other_annotations_and_adds_the_share(self) -> None:
        pod = decode_pod.pod(body(annotations={"a": "b"}))
        assignment = make.assignment(make.pod(), shard_start=3, shard_end=9)

        changed = jsonpatch.apply_patch(
            body(annotations={"a": "b"}), [dict(op) for op in release.release(pod, "node-1", assignment)]
        )

        assert changed["metadata"]["annotations"]["a"] == "b"
        assert json.loads(changed["metadata"]["annotations"][ASSIGNMENT_ANNOTATION])["shardEnd"] == 9

    @pytest.mark.parametrize("change", ["uid", "resourceVersion"])
    def test_refers_to_exactly_this_pod_in_this_state(self, change: str) -> None:
        pod = decode_pod.pod(body())
        other = body()
        other["metadata"][change] = "99"

        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            jsonpatch.apply_patch(
                other, [dict(op) for op in release.release(pod, "node-1", make.assignment(make.pod()))]
            )


class TestView:
    def test_fields_of_kubelet_and_scheduler(self) -> None:
        found = body(gates=())
        found["spec"]["nodeName"] = "node-1"
        found["status"] = {
            "phase": "Running",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "main",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}},
                    "allocatedResourcesStatus": [{"name": RESOURCE, "resources": [{"resourceID": "GPU-1"}]}],
                }
            ],
        }

        pod = decode_pod.pod(found)

        assert (pod.node, pod.phase, pod.disrupted, pod.ran) == ("node-1", "Running", True, True)
        container = pod.container("main")
        assert container is not None
        assert container.devices == {RESOURCE: frozenset({"GPU-1"})}

    @pytest.mark.parametrize(
        ("reason", "expected"), [("Unschedulable", "no node"), ("SchedulingGated", None), ("SchedulerError", "no node")]
    )
    def test_verdict_or_error_of_the_scheduler_is_a_rejection(self, reason: str, expected: str | None) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": "no node"}

        assert decode_pod.pod({**body(), "status": {"conditions": [condition]}}).unschedulable == expected

    def test_a_container_that_was_never_created_did_not_run(self) -> None:
        made = {"name": "main", "state": {"terminated": {"exitCode": 1, "containerID": "containerd://1"}}}
        never = {"name": "main", "state": {"terminated": {"exitCode": 137}}}

        runs = [decode_pod.pod({**body(), "status": {"containerStatuses": [c]}}).ran for c in (made, never)]

        assert runs == [True, False]
