"""`gpufleet doctor` names cause and cure of each problem; each case changes one thing of a good cluster."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from gpufleet_cli.cluster import kinds
from gpufleet_testing.cli.clusters import RecordedCluster, agent_lease, reservation, workload_pod
from gpufleet_testing.cli.installation import SYSTEM, Cluster, at, examine, good, owner
from gpufleet_testing.cli.runner import run_cli

FORBIDDEN = 'Error from server (Forbidden): User "dev" cannot list resource'


def test_nothing_is_wrong_with_a_good_cluster(cluster: RecordedCluster) -> None:
    assert examine(cluster, good()) == []
    assert run_cli("doctor").out == "no problem found; 18 checks passed\n"


def no_crd(c: Cluster) -> None:
    c["CRDS"].pop()


def old_crd(c: Cluster) -> None:
    versions = c["CRDS"][0]["spec"]["versions"]
    del versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["runPolicy"]


def new_crd(c: Cluster) -> None:
    versions = c["CRDS"][0]["spec"]["versions"]
    versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["later"] = {"type": "string"}


def no_policy(c: Cluster) -> None:
    c["POLICIES"].pop()


def unbound_policy(c: Cluster) -> None:
    c["BINDINGS"].pop()


def auditing_policy(c: Cluster) -> None:
    c["BINDINGS"][0]["spec"]["validationActions"] = ["Audit"]


def no_operator(c: Cluster) -> None:
    c["OPERATORS"].clear()


def stopped_operator(c: Cluster) -> None:
    c["OPERATORS"][0]["status"], c["OPERATORS"][0]["spec"]["replicas"] = {}, 0


def crashing_operator(c: Cluster) -> None:
    c["OPERATORS"][0]["status"] = {}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    log = "the apiserver denies a read, retrying\nexiting on error errors=['pods is forbidden, for 60 s']\n"
    last = {"terminated": {"exitCode": 1, "message": log}}
    c["PODS"][1]["status"] = {
        "phase": "Running",
        "containerStatuses": [{"name": "operator", "state": waiting, "lastState": last}],
    }


def lease(holder: str, renewed: str) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "renewTime": renewed.replace("Z", ".000000Z")}
    return {"metadata": {"name": "gpufleet-operator", "namespace": SYSTEM}, "spec": spec}


def two_replicas(c: Cluster) -> None:
    c["OPERATORS"] = [owner("operator", "--tolerate-taints=nvidia.com/gpu", "--leader-election=true")]


def no_lease(c: Cluster) -> None:
    two_replicas(c)
    c["LEASES"] = [lease("other", at()) | {"metadata": {"name": "gpufleet-operator", "namespace": "elsewhere"}}]


def lease_without_holder(c: Cluster) -> None:
    two_replicas(c)
    c["LEASES"] = [lease("", at())]


def expired_lease(c: Cluster) -> None:
    two_replicas(c)
    c["LEASES"] = [lease("gpufleet-operator-x_1a2b", at(-40))]


def reads_denied(seconds: float, pod: str = "gpufleet-operator-x") -> dict[str, Any]:
    about = {"kind": "Pod", "namespace": SYSTEM, "name": pod}
    message = "the apiserver denies reading gpudemands.gpufleet.dev: gpudemands is forbidden"
    meta = {"name": f"{pod}.1", "namespace": SYSTEM}
    event = {"reason": "ReadsDenied", "type": "Warning", "message": message, "lastTimestamp": at(seconds)}
    return {"metadata": meta, "involvedObject": about, **event}


def denied_demands(c: Cluster) -> None:
    c["DENIED_READS"] = [reads_denied(-200)]


def unseen_workload(c: Cluster) -> None:
    c["WORKLOADS"][0]["metadata"]["generation"] = 2


def no_agent(c: Cluster) -> None:
    c["PODS"].pop(0)


def unready_agent(c: Cluster) -> None:
    c["PODS"][0]["status"]["conditions"] = []


def stale_telemetry(c: Cluster) -> None:
    for where in (c["TELEMETRY"][0]["metadata"]["managedFields"][0], c["TELEMETRY"][0]["status"]):
        where["time" if "time" in where else "observedAt"] = at(-600)


def unregistered_plugin(c: Cluster) -> None:
    c["NODES"][0]["status"].update(capacity={}, allocatable={})


def fewer_allocatable(c: Cluster) -> None:
    c["NODES"][0]["status"]["allocatable"] = {"gpufleet.dev/gpu": "1"}


def second_plugin(c: Cluster) -> None:
    c["NODES"][0]["status"]["capacity"]["nvidia.com/gpu"] = "2"


def no_driver(c: Cluster) -> None:
    c["TELEMETRY"][0]["status"].update(summary={"state": "NoDriver"}, devices=[])


def pending_agent(c: Cluster) -> None:
    agent_mounts(c, "driver-root", "/run/nvidia/driver")
    waiting = {"name": "agent", "state": {"waiting": {"reason": "ContainerCreating"}}}
    c["PODS"][0]["status"] = {"phase": "Pending", "containerStatuses": [waiting]}


def agent_mounts(c: Cluster, volume: str, path: str) -> None:
    c["AGENTS"][0]["spec"]["template"]["spec"]["volumes"] = [{"name": volume, "hostPath": {"path": path}}]


def missing_runtime_class(c: Cluster) -> None:
    c["AGENTS"][0]["spec"]["template"]["spec"]["runtimeClassName"] = "nvidia"


def missing_runtime_handler(c: Cluster) -> None:
    missing_runtime_class(c)
    c["RUNTIME_CLASSES"].append({"metadata": {"name": "nvidia"}, "handler": "nvidia"})


def unknown_taint(c: Cluster) -> None:
    c["AGENTS"][0]["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
    c["NODES"][0]["spec"]["taints"] = [{"key": "team", "value": "ml", "effect": "NoSchedule"}]


def taint_against_the_agent(c: Cluster) -> None:
    c["NODES"][0]["spec"]["taints"] = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]


def baseline_namespace(c: Cluster) -> None:
    c["NAMESPACES"][0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"


def gated_pod(c: Cluster) -> None:
    c["PODS"].append(workload_pod("lost-0", "lost", gated=True))


def lost_reservation(c: Cluster) -> None:
    c["TELEMETRY"][0]["spec"]["assignments"].append(reservation("team", "gone-0", "gone", "GPU-node-1-1"))


def older_agent(c: Cluster) -> None:
    c["TELEMETRY"][0]["status"]["agentVersion"] = "0.0.9"


def late_clock(c: Cluster) -> None:
    c["TELEMETRY"][0]["status"]["observedAt"] = at(-65)


def dra_without_slice(c: Cluster) -> None:
    c["PODS"][0]["spec"]["containers"][0]["args"] = ["--transport=DRA"]
    unregistered_plugin(c)


@pytest.mark.parametrize(
    ("change", "check", "about", "words"),
    [
        (no_crd, "CRDMissing", "gputelemetries.gpufleet.dev", "not installed"),
        (old_crd, "CRDOlder", "gpuworkloads.gpufleet.dev", "it lacks spec.runPolicy"),
        (new_crd, "CRDNewer", "gpuworkloads.gpufleet.dev", "it has spec.later"),
        (no_policy, "PolicyMissing", "pods", "is missing"),
        (unbound_policy, "PolicyNotBound", "gpufleet-pods", "rejects nothing"),
        (auditing_policy, "PolicyNotBound", "gpufleet-assignments", "with Deny"),
        (no_operator, "OperatorMissing", "operator", "nothing places workloads"),
        (stopped_operator, "OperatorNotReady", "gpufleet-operator", "scaled to 0"),
        (crashing_operator, "OperatorNotReady", "gpufleet-operator", "operator: CrashLoopBackOff"),
        (no_lease, "NoLeader", "gpufleet-system/gpufleet-operator", "it has no holder"),
        (lease_without_holder, "NoLeader", "gpufleet-operator", "it has no holder"),
        (expired_lease, "NoLeader", "gpufleet-operator", "the last leader gpufleet-operator-x renewed it at"),
        (denied_demands, "ReadsDenied", "gpufleet-operator-x", "denies reading gpudemands.gpufleet.dev"),
        (unseen_workload, "OperatorBehind", "gpuworkloads", "team/train"),
        (no_agent, "AgentMissing", "node-1", "label nvidia.com/gpu.present=true"),
        (unready_agent, "AgentNotReady", "node-1", "main: running"),
        (pending_agent, "AgentNotReady", "node-1", "agent: ContainerCreating"),
        (stale_telemetry, "TelemetryStale", "node-1", "s old; no pod is placed"),
        (unregistered_plugin, "PluginNotRegistered", "node-1", "the agent reports 2 GPUs"),
        (fewer_allocatable, "AllocatableDiffers", "node-1", "1 gpufleet.dev/gpu are allocatable"),
        (dra_without_slice, "PluginNotRegistered", "node-1", "no device is in a ResourceSlice of gpu.gpufleet.dev"),
        (second_plugin, "SecondPlugin", "node-1", "offers nvidia.com/gpu"),
        (no_driver, "NoDriver", "node-1", "the default runtime"),
        (missing_runtime_class, "RuntimeHandlerMissing", "gpufleet-agent", 'RuntimeClass "nvidia"'),
        (missing_runtime_handler, "RuntimeHandlerMissing", "node-1", 'no handler "nvidia"'),
        (unknown_taint, "TaintNotTolerated", "node-1", "no workload tolerates team=ml:NoSchedule"),
        (taint_against_the_agent, "TaintNotTolerated", "node-1", "the agent does not tolerate nvidia.com/gpu"),
        (baseline_namespace, "PodSecurityRejectsAgent", SYSTEM, "enforce=baseline"),
        (gated_pod, "GatedPodWithoutWorkload", "team/lost-0", 'GPUWorkload "lost" does not exist'),
        (lost_reservation, "ReservationWithoutPod", "node-1", "team/gone-0"),
        (older_agent, "VersionsDiffer", "versions", "0.0.9: the agent on node-1"),
        (late_clock, "ClockSkew", "node-1", "behind the apiserver's"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_thing_that_is_wrong_is_the_one_problem(
    cluster: RecordedCluster, change: Callable[[Cluster], None], check: str, about: str, words: str
) -> None:
    objects = good()
    change(objects)
    (problem,) = examine(cluster, objects)
    assert problem["check"] == check
    assert problem["object"].endswith(about)
    assert words in problem["cause"]
    assert problem["cure"]


@pytest.mark.parametrize("event", [reads_denied(-400), reads_denied(-5, pod="gone")], ids=["old", "of another pod"])
def test_reads_that_are_no_longer_denied_are_no_problem(cluster: RecordedCluster, event: dict[str, Any]) -> None:
    objects = good()
    objects["DENIED_READS"] = [event]
    assert examine(cluster, objects) == []


def test_last_line_of_an_operator_that_ended_is_part_of_the_cause(cluster: RecordedCluster) -> None:
    objects = good()
    crashing_operator(objects)
    (problem,) = examine(cluster, objects)
    end = "; the last one ended with: exiting on error errors=['pods is forbidden, for 60 s']"
    assert problem["cause"].endswith(end)


def test_agent_that_does_not_start_is_described_with_its_directories(cluster: RecordedCluster) -> None:
    objects = good()
    pending_agent(objects)
    (problem,) = examine(cluster, objects)
    assert problem["cure"].startswith("kubectl describe pod --namespace=gpufleet-system gpufleet-agent-x: ")
    assert problem["cure"].endswith("(the driver below /run/nvidia/driver of the node)")


@pytest.mark.parametrize(
    ("volume", "path", "words"),
    [
        ("driver", "/home/kubernetes/bin/nvidia/lib64", "the driver in /home/kubernetes/bin/nvidia/lib64 of the node"),
        ("driver-root", "/run/nvidia/driver", "the driver below /run/nvidia/driver of the node"),
        ("host-usr", "/usr", "the driver below /usr of the node"),
        ("all-devices", "/dev/null", "volume mounts that the default runtime replaces"),
    ],
)
def test_missing_driver_names_where_it_is_expected(
    cluster: RecordedCluster, volume: str, path: str, words: str
) -> None:
    objects = good()
    no_driver(objects)
    agent_mounts(objects, volume, path)
    (problem,) = examine(cluster, objects)
    assert problem["cause"].endswith(f"; the agent uses {words}")


def test_report_that_a_lease_confirms_is_no_problem(cluster: RecordedCluster) -> None:
    objects = good()
    stale_telemetry(objects)
    observed = objects["TELEMETRY"][0]["status"]["observedAt"]
    objects["LEASES"] = [agent_lease("node-1", observed, at(-20), namespace=SYSTEM)]
    assert examine(cluster, objects) == []
    objects["LEASES"] = [agent_lease("node-1", observed, at(-100), namespace=SYSTEM)]
    (problem,) = examine(cluster, objects)
    assert (problem["check"], problem["object"]) == ("TelemetryStale", "gputelemetry/node-1")


def test_clock_of_a_node_at_rest_is_compared_at_its_report(cluster: RecordedCluster) -> None:
    objects = good()
    stale_telemetry(objects)
    observed = at(-665)
    objects["TELEMETRY"][0]["status"]["observedAt"] = observed
    objects["LEASES"] = [agent_lease("node-1", observed, at(-20), namespace=SYSTEM)]
    (problem,) = examine(cluster, objects)
    assert (problem["check"], "is 65 s behind" in problem["cause"]) == ("ClockSkew", True)


def test_unread_leases_of_agents_are_noted(cluster: RecordedCluster) -> None:
    objects = good()
    stale_telemetry(objects)
    fresh = {"type": "Fresh", "status": "True", "reason": "Fresh", "message": ""}
    objects["TELEMETRY"][0]["status"]["conditions"] = [fresh]
    cluster.fail(kinds.AGENT_LEASES.path(), FORBIDDEN)
    assert examine(cluster, objects) == []
    assert "; telemetry is as fresh as the operator's condition Fresh says" in run_cli("doctor").notes[-1]


def test_leader_of_several_replicas_is_named(cluster: RecordedCluster) -> None:
    objects = good()
    two_replicas(objects)
    objects["LEASES"] = [lease("gpufleet-operator-x_1a2b", at(-20))]
    assert examine(cluster, objects) == []
    assert run_cli("doctor").out == "no problem found; 18 checks passed; gpufleet-operator-x leads\n"
    assert run_cli("doctor", "-o", "json").json["leaders"] == ["gpufleet-operator-x"]


def test_lease_of_one_replica_is_not_looked_at(cluster: RecordedCluster) -> None:
    objects = good()
    objects["LEASES"] = [lease("gpufleet-operator-x_1a2b", at(-4000))]
    assert examine(cluster, objects) == []
    assert run_cli("doctor", "-o", "json").json["leaders"] == []


def test_node_with_transport_dra_needs_no_extended_resource(cluster: RecordedCluster) -> None:
    objects = good()
    dra_without_slice(objects)
    spec = {"driver": "gpu.gpufleet.dev", "nodeName": "node-1", "devices": [{"name": "a"}, {"name": "b"}]}
    objects["SLICES"].append({"metadata": {"name": "s"}, "spec": spec})
    assert examine(cluster, objects) == []


def test_toleration_of_a_workload_counts_for_each_taint(cluster: RecordedCluster) -> None:
    objects = good()
    objects["NODES"][0]["spec"]["taints"] = [{"key": key, "effect": "NoSchedule"} for key in ("team", "tier")]
    for one in (objects["AGENTS"][0], objects["WORKLOADS"][0]):
        one["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
    assert examine(cluster, objects) == []


def test_clock_of_this_machine_is_compared_with_the_apiserver(cluster: RecordedCluster) -> None:
    cluster.record("auth-whoami", json.dumps({"metadata": {"creationTimestamp": at(3600)}}))
    (problem,) = examine(cluster, good())
    assert (problem["check"], problem["object"]) == ("ClockSkew", "this machine")
    assert "s behind the apiserver's" in problem["cause"]
    cluster.record("auth-whoami", json.dumps({"metadata": {"creationTimestamp": at(0)}}))
    assert examine(cluster, good()) == []


def test_list_that_may_not_be_read_is_not_checked_with_a_note(cluster: RecordedCluster) -> None:
    cluster.fail(kinds.POLICIES.path(), FORBIDDEN)
    assert examine(cluster, good()) == []
    done = run_cli("doctor")
    assert done.out == "no problem found; 17 checks passed, 1 not made\n"
    assert [note.startswith("not checked: admission policies:") for note in done.notes] == [True]


VIEWED = ("TELEMETRY", "WORKLOADS", "PODS")


def test_viewer_gets_the_checks_of_what_it_may_read(cluster: RecordedCluster) -> None:
    objects = good()
    for name in objects.keys() - set(VIEWED):
        cluster.fail(getattr(kinds, name).path(), FORBIDDEN)
    assert examine(cluster, objects) == []
    done = run_cli("doctor")
    assert (done.code, done.out) == (0, "no problem found; 3 checks passed, 15 not made\n")
    assert "CustomResourceDefinitions, operator, " in done.notes[0]


def test_user_without_any_permission_gets_an_error(cluster: RecordedCluster) -> None:
    for name in good():
        cluster.fail(getattr(kinds, name).path(), FORBIDDEN)
    done = run_cli("doctor")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith('error: nothing can be checked: User "dev" cannot list resource')


def test_problems_are_printed_with_cause_and_cure(cluster: RecordedCluster) -> None:
    objects = good()
    gated_pod(objects)
    examine(cluster, objects)
    assert run_cli("doctor").out.splitlines() == [
        "GatedPodWithoutWorkload pod/team/lost-0",
        '├── cause: the gate gpufleet.dev/assignment holds the pod, and GPUWorkload "lost" does not exist',
        "└── cure: kubectl delete pod --namespace=team lost-0, or create the GPUWorkload",
        "1 problem found; 17 checks passed",
    ]
