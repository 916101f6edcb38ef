"""Manifests of other controllers become GPUWorkloads that the apiserver and the operator accept."""

from typing import Any

import pytest
import yaml

from gpufleet_testing.cli.files import ObjectFiles, idle_node
from gpufleet_testing.cli.runner import run_cli

JsonObject = dict[str, Any]


def container(name: str = "main", limits: JsonObject | None = None, **fields: object) -> JsonObject:
    given = {"nvidia.com/gpu": 2, "cpu": "4"} if limits is None else limits
    return {"name": name, "image": "example:1", "resources": {"limits": given}, **fields}


def template(*containers: JsonObject, **spec: object) -> JsonObject:
    return {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def deployment(pod: JsonObject | None = None, **spec: object) -> JsonObject:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ml", "labels": {"app": "web"}},
        "spec": {"replicas": 3, "template": pod or template(), **spec},
    }


def job(name: str = "train", **spec: object) -> JsonObject:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template(), **spec},
    }


def converted(files: ObjectFiles, *objects: JsonObject) -> tuple[list[JsonObject], list[str]]:
    done = run_cli("convert", "-f", files.write(*objects))
    assert done.code == 0, done.err
    return list(yaml.safe_load_all(done.out)), done.notes


def test_deployment_keeps_labels_replicas_and_other_resources(files: ObjectFiles) -> None:
    ((workload,), notes) = converted(files, deployment())
    assert workload["metadata"] == {"name": "web", "namespace": "ml", "labels": {"app": "web"}}
    spec = workload["spec"]
    assert (spec["replicas"], spec["devices"]) == (3, {"count": 2})
    assert spec["network"] == {"enableDNSHostnames": False}
    assert spec["template"]["metadata"] == {"labels": {"app": "web"}}
    assert spec["template"]["spec"]["restartPolicy"] == "Always"
    assert spec["template"]["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "4"}}
    assert (
        "web: resources nvidia.com/gpu=2 of container main are now spec.devices: the operator adds the request" in notes
    )


def test_strategy_of_a_deployment_becomes_the_update_strategy(files: ObjectFiles) -> None:
    ((recreate,), _) = converted(files, deployment(strategy={"type": "Recreate"}))
    assert recreate["spec"]["updateStrategy"] == {"maxUnavailable": "100%"}
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2, "maxSurge": 1}}
    ((workload,), notes) = converted(files, deployment(strategy=rolling))
    assert workload["spec"]["updateStrategy"] == {"maxUnavailable": 2}
    assert any("maxSurge is left out" in note for note in notes)


def test_job_keeps_its_limits_and_counts_completions(files: ObjectFiles) -> None:
    spec: JsonObject = {
        "completions": 8,
        "parallelism": 2,
        "completionMode": "Indexed",
        "backoffLimit": 1,
        "suspend": True,
    }
    ((workload,), notes) = converted(files, job(**spec))
    found = workload["spec"]
    assert (found["replicas"], found["runPolicy"], found["suspend"]) == (8, {"backoffLimit": 1}, True)
    assert found["template"]["spec"]["restartPolicy"] == "Never"
    assert any("use GPUFLEET_REPLICA" in note for note in notes)


def test_job_set_becomes_a_gang_for_each_job_with_gpus(files: ObjectFiles) -> None:
    jobs = [
        {"name": "worker", "replicas": 2, "template": {"spec": {"parallelism": 4, "template": template()}}},
        {"name": "driver", "template": {"spec": {"template": template(container(limits={"cpu": 1}))}}},
    ]
    body = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "big"},
        "spec": {"replicatedJobs": jobs},
    }
    ((workload,), _) = converted(files, body)
    assert workload["metadata"]["name"] == "big-worker"
    assert (workload["spec"]["replicas"], workload["spec"]["placement"]) == (8, {"gang": True})


def test_shared_gpu_of_hami_becomes_a_promise(files: ObjectFiles) -> None:
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "3000", "nvidia.com/gpucores": "30"}
    ((workload,), _) = converted(files, deployment(template(container(limits=limits))))
    shared = {"count": 1, "mode": "Shared", "memoryMiB": 3000, "computePercent": 30}
    assert workload["spec"]["devices"] == shared


def test_container_variable_and_scheduler_are_adapted(files: ObjectFiles) -> None:
    asking = container(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}, {"name": "A", "value": "1"}])
    pod = template(asking, container("proxy", {}), schedulerName="volcano", schedulingGates=[{"name": "x"}])
    ((workload,), notes) = converted(files, deployment(pod))
    assert workload["spec"]["devices"]["container"] == "main"
    found = workload["spec"]["template"]["spec"]
    assert found["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    assert not {"schedulerName", "schedulingGates"} & found.keys()
    assert sum("removed" in note for note in notes) == 3


def test_pod_and_objects_without_gpus(files: ObjectFiles) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one"},
        "spec": {**template()["spec"], "restartPolicy": "Never"},
    }
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {}}
    found, notes = converted(files, service, pod)
    assert [one["kind"] for one in found] == ["Service", "GPUWorkload"]
    assert found[0] == service
    assert "Service web unchanged: it requests no GPU" in notes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (deployment(template(container("a"), container("b"))), "containers a, b request GPUs: only one container"),
        (deployment(template(container(limits={"nvidia.com/mig-1g.5gb": 1}))), "nvidia.com/mig-1g.5gb, which has no"),
        (deployment(template(container(limits={"nvidia.com/gpu": "two"}))), "Invalid value: 'two'"),
        (deployment(template(container(limits={"nvidia.com/gpu": 17}))), "requests 17 GPUs: a pod can have 16"),
        (deployment(template(container("a", {}), initContainers=[container("i")])), "init container i requests GPUs"),
        (job("x" * 51), "longer than 50 characters"),
        (deployment(template(container(limits={}))), "no Deployment, ReplicaSet, Job, JobSet or Pod with GPUs found"),
        ({**deployment(), "spec": {}}, "spec.template.spec: Required value"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_bad_input(files: ObjectFiles, body: JsonObject, message: str) -> None:
    done = run_cli("convert", "-f", files.write(body))
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_simulate_places_other_kinds(files: ObjectFiles) -> None:
    done = run_cli(
        "simulate", "-f", files.write(deployment(), job()), "--from", files.write(idle_node("n", 8)), "-o", "json"
    )
    assert done.code == 0
    assert [one["name"] for one in done.json["workloads"]] == ["ml/web", "default/train"]
