"""Steps in any order with crashes anywhere: hypothesis searches for a run that breaks an invariant."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_operator.runtime.pacing.held_statuses import HOLD
from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Crash, Json, WriteFault
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import LIMITS, OperatorProcess

DEVICES = st.one_of(
    st.builds(lambda count: {"count": count}, st.integers(1, 2)),
    st.builds(
        lambda count, memory: {"count": count, "mode": "Shared", "memoryMiB": memory},
        st.integers(1, 2),
        st.integers(100, 600),
    ),
)
RUN_POLICIES = st.builds(
    lambda limit, policy, ttl: {
        "backoffLimit": limit,
        **({"onReplicaFailure": policy} if policy else {}),
        **({"ttlSecondsAfterFinished": ttl} if ttl else {}),
    },
    st.integers(0, 2),
    st.sampled_from([None, "RestartReplica", "RestartAll", "Fail"]),
    st.sampled_from([None, None, 5]),
)
WORKLOADS = st.builds(
    lambda replicas, devices, gang, shares, strategy, restart_policy, run_policy, names, priority: {
        "replicas": replicas,
        "devices": devices,
        "placement": {"gang": gang, "strategy": strategy},
        "restart_policy": restart_policy,
        "runPolicy": run_policy,
        "network": {"enableDNSHostnames": names},
        "priority": priority,
        **({"distribution": {"items": 100, "mode": "Proportional"}} if gang and shares else {}),
    },
    st.integers(1, 3),
    DEVICES,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["Best", "Pack", "Spread"]),
    st.sampled_from(["Always", "OnFailure", "Never"]),
    RUN_POLICIES,
    st.booleans(),
    st.sampled_from([None, None, 0, 100]),
)
LIMITS_OF_QUEUE = replace(LIMITS, reserve_after=timedelta(seconds=3))
"""Devices are earmarked within a run."""
WATCHED = ("workloads", "telemetry", "pods", "nodes", "services")
LATE = timedelta(seconds=20)
"""Age of the renewal of a kubelet that has missed one and whose lease is still valid."""


class OperatorMachine(RuleBasedStateMachine):
    """Steps in any order.

    Few rules, each with many turns, so that a run gets somewhere: pods are bound, run, end and are lost.
    """

    @initialize(
        nodes=st.integers(1, 3),
        devices=st.integers(1, 3),
        wanted=st.lists(WORKLOADS, min_size=1, max_size=3),
        hold=st.sampled_from([timedelta(0), HOLD]),
        fast_watches=st.booleans(),
        creates=st.sampled_from([1, LIMITS.max_creates]),
    )
    def begin(
        self,
        *,
        nodes: int,
        devices: int,
        wanted: list[Json],
        hold: timedelta,
        fast_watches: bool,
        creates: int,
    ) -> None:
        self.hold = hold
        self.limits = replace(LIMITS_OF_QUEUE, max_creates=creates)
        self.runner = asyncio.Runner()
        self.world = FakeCluster(nodes, devices)
        if fast_watches:
            self.world.before_response = lambda: self.operator.hear(1000)
        self.late: set[str] = set()
        self.start_operator()
        self.number = 0
        for spec in wanted:
            self.submit(spec)

    def start_operator(self) -> None:
        self.operator = OperatorProcess(self.world, self.limits, checked=True, hold_statuses=self.hold)
        self.read_leases()

    def read_leases(self) -> None:
        self.operator.read_leases(dict.fromkeys(self.late, LATE))

    def submit(self, spec: Json) -> None:
        self.number += 1
        self.world.submit(f"w{self.number}", **spec)

    @rule(spec=WORKLOADS)
    def user_submits(self, spec: Json) -> None:
        if len(self.world.of("workloads")) < 5:
            self.submit(spec)

    @rule(data=st.data(), what=st.sampled_from(["delete", "suspend or resume"]))
    def user_changes_workload(self, data: st.DataObject, what: str) -> None:
        workloads = self.world.of("workloads")
        if workloads:
            body = data.draw(st.sampled_from(workloads))
            key = f"ml/{body['metadata']['name']}"
            if what == "delete":
                self.world.remove("workloads", key)
            else:
                spec = {**body["spec"], "suspend": not body["spec"].get("suspend", False)}
                self.world.store("workloads", key, {**body, "metadata": dict(body["metadata"]), "spec": spec})

    @rule(data=st.data())
    def user_deletes_service(self, data: st.DataObject) -> None:
        services = self.world.of("services")
        if services:
            self.world.remove("services", f"ml/{data.draw(st.sampled_from(services))['metadata']['name']}")

    @rule(data=st.data(), what=st.sampled_from(["replicas", "image", "strategy"]), value=st.integers(0, 3))
    def user_edits_workload(self, data: st.DataObject, what: str, value: int) -> None:
        workloads = self.world.of("workloads")
        if not workloads:
            return
        body = data.draw(st.sampled_from(workloads))
        name = body["metadata"]["name"]
        if what == "image":
            self.world.change_template(name, f"image-{value}")
        elif what == "strategy":
            kind = "OnDelete" if value == 0 else "RollingUpdate"
            self.world.edit(name, updateStrategy={"type": kind, "maxUnavailable": max(1, value)})
        elif "distribution" not in body["spec"]:
            self.world.edit(name, replicas=value)

    @rule(data=st.data(), what=st.sampled_from(["delete", "force delete", "Succeeded", "Failed"]))
    def pod_ends(self, data: st.DataObject, what: str) -> None:
        pods = self.world.of("pods")
        if what in ("Succeeded", "Failed"):
            pods = [p for p in pods if p["status"]["phase"] == "Running"]
        if not pods:
            return
        key = f"ml/{data.draw(st.sampled_from(pods))['metadata']['name']}"
        if what == "delete":
            self.world.delete_gracefully(key)
        elif what == "force delete":
            self.world.remove("pods", key)
        else:
            self.world.finish(key, what)

    @rule(heard=st.sampled_from([0, 1, 3, 100]))
    def operator_decides(self, heard: int) -> None:
        self.operator.hear(heard)
        self.runner.run(self.operator.act())

    @rule(kinds=st.sets(st.sampled_from(WATCHED), min_size=1, max_size=len(WATCHED) - 1))
    def operator_hears_of_some_kinds_first(self, kinds: set[str]) -> None:
        """Each watch lags by itself. The others deliver later, and these once more, which changes nothing."""
        for event, kind, body in self.world.log[self.operator.position :]:
            if kind in kinds:
                self.operator.see(event, kind, body)
        self.runner.run(self.operator.act())

    @rule(writes=st.integers(0, 6), after=st.booleans(), heard=st.sampled_from([0, 100]))
    def operator_crashes(self, writes: int, after: bool, heard: int) -> None:
        self.operator.hear(heard)
        self.world.fault = WriteFault(writes, Crash, after=after)
        try:
            self.runner.run(self.operator.act())
        except Crash:
            self.start_operator()
        self.world.fault = None

    @rule(writes=st.integers(0, 4), after=st.booleans(), times=st.integers(1, 3))
    def response_is_lost(self, writes: int, after: bool, times: int) -> None:
        """Several times: each backoff is longer, and its end is a moment of its own."""
        for _ in range(times):
            self.operator.hear(100)
            self.world.fault = WriteFault(writes, UnavailableError, after=after)
            self.runner.run(self.operator.act())
            self.world.fault = None
            self.world.advance(times - 1)

    @rule(data=st.data(), what=st.sampled_from(["lose", "repeat", "relist", "restart"]))
    def watches_fail(self, data: st.DataObject, what: str) -> None:
        if what == "lose":
            self.operator.hear(data.draw(st.integers(1, 5)), lose=True)
        elif what == "repeat" and self.operator.position:
            event, kind, body = self.world.log[data.draw(st.integers(0, self.operator.position - 1))]
            self.operator.see(event, kind, body)
        elif what == "relist":
            self.operator.relist()
        elif what == "restart":
            self.start_operator()

    @rule(what=st.sampled_from(["scheduler", "kubelets", "agents", "collector"]))
    def other_component_acts(self, what: str) -> None:
        if what == "scheduler":
            self.world.scheduler()
        elif what == "collector":
            self.world.collector()
        else:
            for node in self.world.kubelets:
                getattr(self.world, what.rstrip("s"))(node)

    @rule(rounds=st.integers(1, 3))
    def rounds_without_faults(self, rounds: int) -> None:
        for _ in range(rounds):
            for _ in range(2):
                self.operator.hear(1000)
                self.runner.run(self.operator.act())
            self.world.scheduler()
            for node in self.world.kubelets:
                self.world.kubelet(node)
                self.world.agent(node)
            self.world.advance(1)

    @rule(data=st.data(), what=st.sampled_from(["binding", "admission", "agent", "lease", "registration"]))
    def node_fails(self, data: st.DataObject, what: str) -> None:
        name = str(data.draw(st.sampled_from(sorted(self.world.kubelets))))
        if what == "binding":
            self.world.reject_binding ^= {name}
        elif what == "admission":
            self.world.reject_admission ^= {name}
        elif what == "agent":
            self.world.silent ^= {name}
        elif what == "lease":
            self.late ^= {name}
            self.read_leases()
        else:
            self.world.register_again(name)

    @rule(seconds=st.sampled_from([0.5, 3, 11, 40, 100]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @invariant()
    def no_device_is_allocated_twice(self) -> None:
        if hasattr(self, "world"):
            invariants.check_always(self.world)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.late.clear()
            self.read_leases()
            # Enough for several pauses of minutes; it ends when nothing changes.
            self.runner.run(invariants.settle(self.world, self.operator, rounds=60))
            invariants.check_always(self.world)
            invariants.check_settled(self.world)
            self.runner.close()


@pytest.mark.histories
@pytest.mark.timeout(20 * histories(15))
def test_any_order_of_steps_settles() -> None:
    run_state_machine_as_test(
        OperatorMachine,
        settings=settings(
            max_examples=histories(15),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
