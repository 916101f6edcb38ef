"""The headless Service of a workload whose pods have host names."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.state import record_results
from gpufleet_operator.model.actions import service_key
from gpufleet_operator.model.objects import Service, Workload
from gpufleet_operator.pods import network
from gpufleet_testing.operator import make, results

DNS: Mapping[str, Any] = {"enableDNSHostnames": True}


def services(*objects: Workload, existing: tuple[Service, ...] = ()) -> list[str]:
    snapshot = make.snapshot(*objects, services={service.uid: service for service in existing})
    return [action.body["metadata"]["name"] for action in decide(snapshot).services]


def stored(workload: Workload, **changes: object) -> Service:
    """The Service of a workload as the operator made it, except for these fields of its spec."""
    body = network.service(workload)
    return Service(
        "s", workload.namespace, "1", workload.uid, labels=body["metadata"]["labels"], spec={**body["spec"], **changes}
    )


def test_missing_service_is_created_with_the_pods() -> None:
    actions = decide(make.snapshot(make.workload(network=DNS)))

    assert [action.body["metadata"]["name"] for action in actions.services] == ["train"]
    assert len(actions.creates) == 1


def test_no_service_without_dns_hostnames() -> None:
    assert services(make.workload(network={"enableDNSHostnames": False})) == []


def test_suspended_workload_has_its_service() -> None:
    assert services(make.workload(network=DNS, suspend=True)) == ["train"]


def test_invalid_template_creates_no_service() -> None:
    assert services(make.workload(network=DNS, template={"spec": {"containers": []}})) == []


def test_owned_service_is_not_created_again() -> None:
    workload = make.workload(network=DNS)

    assert services(workload, existing=(stored(workload),)) == []


def test_service_of_an_earlier_workload_of_the_name_does_not_count() -> None:
    assert services(make.workload(network=DNS), existing=(Service("s", "ml", "1", owner_uid="uid-earlier"),)) == [
        "train"
    ]


def test_service_in_another_namespace_that_names_the_workload_is_ignored() -> None:
    """Users know the uids of others, and can write them as an owner into a Service of their own."""
    workload = make.workload(network=DNS)
    forged = replace(stored(workload, clusterIP="10.0.0.1"), uid="forged", namespace="other")

    assert services(workload, existing=(forged,)) == ["train"]
    both = {"s": stored(workload), "forged": forged}
    assert decide(make.snapshot(workload, services=both)).restored_services == ()


def test_service_that_is_being_deleted_is_created_again() -> None:
    workload = make.workload(network=DNS)

    assert services(workload, existing=(Service("s", "ml", "1", owner_uid=workload.uid, deleting=True),)) == ["train"]


def test_service_of_another_owner_is_named_in_degraded_and_retried() -> None:
    workload = make.workload(network=DNS)
    first = decide(make.snapshot(workload))
    error = "Service train already exists with another owner"

    state = record_results(first.state, [(service_key(workload.uid), error, "apiserver")], make.NOW)
    second = decide(make.snapshot(workload, state=state))

    assert second.services == ()
    (write,) = second.statuses
    assert results.condition(write, "Degraded") == ("True", "ServiceCreateFailed")
    message = next(c.message for c in write.status.conditions if c.type == "Degraded")
    assert message == f"cannot write Service train: {error}; pods may have no DNS names"
    assert second.due is not None
    assert len(decide(make.later(make.snapshot(workload), second, 2)).services) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"selector": {"app": "other"}},
        {"type": "ExternalName"},
        {"publishNotReadyAddresses": False},
        {"clusterIP": "1.2.3.4"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_changed_service_is_restored_at_most_every_half_minute(changes: dict[str, Any]) -> None:
    workload = make.workload(network=DNS)
    snapshot = make.snapshot(workload, services={"s": stored(workload, **changes)})

    first = decide(snapshot)
    second = decide(make.later(snapshot, first, 29))

    (action,) = first.restored_services
    assert (action.uid, action.body["spec"]["selector"]) == ("s", {"gpufleet.dev/workload": "train"})
    assert second.restored_services == ()
    assert second.due == make.NOW + timedelta(seconds=30)
    assert len(decide(make.later(snapshot, second, 30)).restored_services) == 1


def test_ports_and_labels_of_another_client_are_left() -> None:
    workload = make.workload(network=DNS)
    found = stored(workload)
    labeled = replace(found, labels={**found.labels, "team": "ml"})

    assert decide(make.snapshot(workload, services={"s": labeled})).restored_services == ()
    unlabeled = replace(found, labels={})
    assert len(decide(make.snapshot(workload, services={"s": unlabeled})).restored_services) == 1


def test_pods_of_an_earlier_template_keep_their_service() -> None:
    invalid = make.workload(network=DNS, template={"spec": {"restartPolicy": "Always", "containers": []}})
    snapshot = make.snapshot(invalid, make.running_pod(), make.telemetry())

    assert [action.body["metadata"]["name"] for action in decide(snapshot).services] == ["train"]
