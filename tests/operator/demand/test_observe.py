"""Runs as the agents report them."""

from dataclasses import replace

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.demand.observe import ObservedRun, RunKey, observe_runs
from gpufleet_operator.model.demands.gpu_demand import OwnerReference
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.pod_state.owner import PodOwner
from gpufleet_testing.operator import make
from gpufleet_testing.operator.make import HolderMemory, using

SHARED = {"mode": "Shared", "memoryMiB": 4000}
ENDS = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1"}]}}
KEY = TemplateKey("ml", "GPUWorkload", "train", "main", "busybox")


def a_pod(**fields: object) -> Pod:
    return replace(make.running_pod("train", images=(("main", "busybox:1"),), workload_label="train"), **fields)  # type: ignore[arg-type] # the fields of one test


Runs = dict[RunKey, ObservedRun]


def runs(pod: Pod, memory: HolderMemory, *workloads: Workload, promised: int | None = 4000) -> Runs:
    reserved: Assignment = make.assignment(pod, "GPU-1-0", memory_mib=promised)
    telemetry = using(make.telemetry(held={"GPU-1-0": reserved}), {pod.name: memory})
    return observe_runs([telemetry], {pod.uid: pod}, workloads)


def test_holder_with_a_promise_is_a_run_with_its_maximum() -> None:
    pod = a_pod()
    ((key, uid), run), = runs(pod, HolderMemory(300, 900, 50), make.workload(devices=SHARED)).items()  # fmt: skip
    assert (key, uid) == (KEY, pod.uid)
    assert (run.promised_mib, run.max_mib, (run.until - run.since).total_seconds()) == (4000, 900, 50)


def test_promise_is_that_of_the_workload_and_not_of_a_move() -> None:
    (run,) = runs(a_pod(), HolderMemory(300), make.workload(devices=SHARED), promised=6000).values()
    assert run.promised_mib == 4000
    (run,) = runs(a_pod(), HolderMemory(300), promised=6000).values()
    assert run.promised_mib == 6000


def test_whole_devices_and_unknown_use_are_no_runs() -> None:
    assert runs(a_pod(), HolderMemory(300), promised=None) == {}
    pod = a_pod()
    telemetry = make.telemetry(held={"GPU-1-0": make.assignment(pod, "GPU-1-0", memory_mib=4000)})
    assert observe_runs([telemetry], {pod.uid: pod}, ()) == {}


def test_holder_without_a_pod_is_left_out() -> None:
    pod = a_pod()
    telemetry = using(
        make.telemetry(held={"GPU-1-0": make.assignment(pod, "GPU-1-0", memory_mib=4000)}), {pod.name: HolderMemory(1)}
    )
    assert observe_runs([telemetry], {}, ()) == {}


def test_only_owners_that_outlive_their_runs_are_named() -> None:
    forever, ending = make.workload(devices=SHARED), make.workload(devices=SHARED, template=ENDS)
    (run,) = runs(a_pod(), HolderMemory(1), forever).values()
    assert run.owner == OwnerReference("gpufleet.dev/v1alpha1", "GPUWorkload", "train", "uid-train")
    (run,) = runs(a_pod(), HolderMemory(1), ending).values()
    assert run.owner is None

    owned = a_pod(workload_uid="", owner=PodOwner("ReplicaSet", "web-7d4b9c6f5d", "uid-rs", "apps"))
    (run,) = runs(owned, HolderMemory(1)).values()
    assert run.owner == OwnerReference("apps/v1", "ReplicaSet", "web-7d4b9c6f5d", "uid-rs")
    job = a_pod(workload_uid="", owner=PodOwner("Job", "train", "uid-job", "batch"))
    (run,) = runs(job, HolderMemory(1)).values()
    assert run.owner is None


def test_largest_use_of_several_devices_counts() -> None:
    pod = a_pod()
    reserved = make.assignment(pod, "GPU-1-0", "GPU-1-1", memory_mib=4000)
    telemetry = using(make.telemetry(held=dict.fromkeys(reserved.devices, reserved)), {pod.name: HolderMemory(500)})
    status = make.telemetry_status(telemetry)
    second = status.devices[1]
    more = second.allocated_to[0].model_copy(update={"memory_used_max_mib": 700})
    devices = [status.devices[0], second.model_copy(update={"allocated_to": [more]})]
    changed = telemetry.model.model_copy(update={"status": status.model_copy(update={"devices": devices})})
    (run,) = observe_runs([replace(telemetry, model=changed)], {pod.uid: pod}, ()).values()
    assert run.max_mib == 700
