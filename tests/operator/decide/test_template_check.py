"""A malformed template affects only its own workload; pods of others are created and placed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.names import RESOURCE
from gpufleet_operator.cache.compact import compact
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_operator.pods import build as podbuild
from gpufleet_operator.pods.requests import pod_needs
from gpufleet_operator.runtime.request_mix import RequestMix
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.operator import make, results
from gpufleet_testing.operator.mutations import changed, paths, variants

FULL: dict[str, Any] = {
    "metadata": {"labels": {"app": "x"}, "annotations": {"a": "b"}},
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": "x",
                "env": [{"name": "A", "value": "1"}],
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "c"}}],
                "resources": {"limits": {"cpu": "2", RESOURCE: "1"}, "requests": {"cpu": "1", "memory": "1Gi"}},
            }
        ],
        "initContainers": [
            {"name": "first", "restartPolicy": "Always", "resources": {"requests": {"memory": "1Mi"}}},
            {"name": "second", "resources": {"limits": {"cpu": "1e1"}}},
        ],
        "resources": {"requests": {"cpu": "3"}},
        "overhead": {"cpu": "10m"},
        "schedulingGates": [{"name": "example.com/quota"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
                            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}],
                        }
                    ]
                }
            }
        },
    },
}

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**70,
    0.5,
    "",
    "x",
    "8E",
    "1e9999",
    "-1",
    "m" * 300,
    [],
    {},
    [None],
    ["x"],
    [{}],
)
ODD = (*ODD, {"a": None}, {"x": "y"}, {"name": None}, {"cpu": "8E"}, [[]], {"spec": []}, [{"name": "A"}])


JSON = st.recursive(
    st.sampled_from(ODD) | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "cpu", "key"]), inner),
    max_leaves=4,
)


def live_beside(templates: Sequence[Any]) -> None:
    """Runs two passes with these templates and asserts that a valid workload is placed."""
    good, nodes = make.workload("good"), [make.telemetry(f"node-{number}") for number in (1, 2)]
    odd = {f"uid-odd-{at}": make.workload(f"odd-{at}", template=template) for at, template in enumerate(templates)}
    pods, request_mix = [make.pod(good)], RequestMix()
    for _ in range(2):
        workloads = [*odd.values(), good]
        mix = request_mix.update({w.uid: w for w in workloads}, {n.uid: n for n in nodes}, make.checks(*workloads))
        actions = decide(make.snapshot(good, *odd.values(), *pods, *nodes, mix=mix))
        assert "good-0-a" in {r.name for r in actions.releases}
        assert not actions.unexpected_errors, actions.unexpected_errors
        made = {c.workload_uid: c.body for c in actions.creates}
        for write in (s for s in actions.statuses if s.workload_uid in odd):
            stalled = next(c for c in write.status.conditions if c.type == "Stalled")
            if stalled.status == "True":
                assert stalled.reason == "InvalidTemplate"
                assert stalled.message.startswith("spec."), stalled.message
                assert write.workload_uid not in made
        pods += [make.pod(odd[uid], needs=pod_needs(body["spec"])) for uid, body in made.items()]


BATCH = 60
"""Templates in one snapshot."""


def test_the_unchanged_template_is_valid() -> None:
    """Otherwise its variants prove nothing."""
    snapshot = make.snapshot(make.workload(template=FULL), make.telemetry())

    assert len(decide(snapshot).creates) == 1


def test_another_value_at_any_place_stops_no_other_workload() -> None:
    found = list(variants(FULL, list(paths(FULL)), ODD))
    for start in range(0, len(found), BATCH):
        batch = found[start : start + BATCH]
        try:
            live_beside([template for _, _, template in batch])
        except Exception:
            for path, value, template in batch:
                print(path, repr(value))  # noqa: T201 - the last one printed is the cause
                live_beside([template])
            raise


@examples(15)
@given(st.data())
def test_several_other_values_stop_no_other_workload(data: st.DataObject) -> None:
    templates = []
    for _ in range(8):
        template: object = FULL
        for _ in range(data.draw(st.integers(1, 3))):
            path = data.draw(st.sampled_from(list(paths(template))))
            template = changed(template, path, data.draw(JSON))
        templates.append(template)

    live_beside(templates)


def test_an_unexpected_error_affects_one_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported once, with its traceback, not in each pass."""
    build = podbuild.build

    def breaks(workload: Workload, *rest: Any, **options: Any) -> Any:
        if workload.name == "bad":
            raise ZeroDivisionError("unexpected")
        return build(workload, *rest, **options)

    monkeypatch.setattr(podbuild, "build", breaks)
    bad, good = make.workload("bad"), make.workload("good")
    snapshot = make.snapshot(bad, good, make.pod(good), make.telemetry())

    actions = decide(snapshot)
    again = decide(make.later(snapshot, actions, 1))

    assert [r.name for r in actions.releases] == ["good-0-a"]
    write = next(s for s in actions.statuses if s.name == "bad")
    assert results.condition(write, "Stalled") == ("True", "InvalidTemplate")
    assert write.status.conditions[-1].message == ("spec.template: Internal error: ZeroDivisionError: unexpected")
    assert "in breaks" in actions.unexpected_errors["ml/bad"]
    assert not again.unexpected_errors
    assert RequestMix().update({bad.uid: bad}, {}, snapshot.templates) == RequestMix().update({}, {}, {})


HUGE = [
    PodNeeds(cpu_milli=8 * 10**21),
    PodNeeds(memory_bytes=2**63 - 1),
    PodNeeds(memory_bytes=2**64),
    PodNeeds(extended={"example.com/x": 2**64, RESOURCE: 1}),
]


@pytest.mark.parametrize("needs", HUGE, ids=str)
@pytest.mark.parametrize("strategy", ["Best", "Pack", "Spread"])
def test_huge_amounts_are_counted(needs: PodNeeds, strategy: str) -> None:
    """A pod that waits, one that runs, and a valid workload, on a node without capacity."""
    huge, good = make.workload("huge", placement={"strategy": strategy}), make.workload("good")
    running = make.running_pod("gone", needs=needs, containers=(Container("main", running=True),))
    gated = make.pod(huge, needs=replace(needs, extended={RESOURCE: 1, **needs.extended}))

    actions = decide(make.snapshot(huge, good, gated, running, make.pod(good), *map(make.telemetry, NODES)))

    assert [r.name for r in actions.releases] == ["good-0-a"]
    assert needs.extended or [r.node for r in actions.releases] == ["node-2"]
    assert huge.uid in actions.unplaced


NODES = ("node-1", "node-2")


@pytest.mark.parametrize("amount", ["8E", "9223372036854775807", "1e9999", "x"])
@pytest.mark.parametrize("name", ["cpu", "memory", "example.com/x"])
def test_other_pods_may_request_any_amount(name: str, amount: str) -> None:
    needs = pod_needs({"containers": [{"resources": {"requests": {name: amount}}}] * 3})
    others = {"node-1": {"cpu": 3 * needs.cpu_milli, "memory": 3 * needs.memory_bytes, "pods": 3, **needs.extended}}
    good = make.workload("good")

    actions = decide(make.snapshot(good, make.pod(good), *map(make.telemetry, NODES), other_requests=others))

    assert [r.name for r in actions.releases] == ["good-0-a"]


def test_workloads_with_equal_templates_share_one_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and volumes differ from job to job: each has its own hash, and an error in labels is its own."""
    build, built = podbuild.build, []

    def counted(workload: Workload, *rest: Any, **options: Any) -> Any:
        built.append(workload.name)
        return build(workload, *rest, **options)

    def job(name: str, label: str = "app") -> Workload:
        spec = {**FULL["spec"], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]}
        template = {"metadata": {"labels": {label: name}}, "spec": spec}
        workload = make.workload(name, template=template)
        assert workload.model is not None
        return replace(workload, model=compact(workload.model))

    monkeypatch.setattr(podbuild, "build", counted)
    jobs = [job("job-1"), job("job-2"), job("job-3", label=RESOURCE)]

    checks = make.checks(*jobs)

    assert built == ["job-1"]
    first, second, third = (checks[each.uid] for each in jobs)
    assert first.pod_type == second.pod_type is not None
    assert (first.errors, second.errors) == ((), ())
    assert first.template_hash != second.template_hash == make.checks(jobs[1])[jobs[1].uid].template_hash
    assert len(third.errors) == 1
    assert RESOURCE in third.errors[0]


def test_templates_with_other_containers_are_checked_each() -> None:
    """Also if one of the parts is malformed in the second one only."""
    malformed = {**FULL, "spec": {**FULL["spec"], "overhead": {"cpu": "x"}}}
    good, bad = make.workload("good", template=FULL), make.workload("bad", template=malformed)

    checks = make.checks(good, bad)

    assert not checks[good.uid].errors
    assert "overhead[cpu]" in checks[bad.uid].errors[0]
