"""Names of a workload's pods in the cluster's DNS."""

import re

import pytest

from gpufleet_operator.pods import network
from gpufleet_testing.operator import make

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@pytest.mark.parametrize("name", ["train", "a", "t" * 50, "train-1"])
def test_service_has_the_name_of_the_workload(name: str) -> None:
    assert network.service_name(name) == name


@pytest.mark.parametrize("name", ["llama-3.1-70b.fp8", "3d-unet", "a.b", "0" * 50, "a" * 49 + ".b", "a" * 253])
def test_name_that_dns_forbids_is_replaced_by_a_similar_one(name: str) -> None:
    found = network.service_name(name)

    assert found != name
    assert DNS_1035.fullmatch(found)
    assert len(network.hostname(name, 1023)) <= 63
    assert found == network.service_name(name), "stable over restarts"


def test_similar_names_differ_by_their_hash() -> None:
    assert len({network.service_name(name) for name in ("a.b", "a-b", "a..b")}) == 3
    assert network.service_name("llama-3.1").startswith("llama-3-1-")
    assert network.service_name("3d").startswith("w-3d-")


def test_leader_is_replica_0_in_the_namespace_of_the_workload() -> None:
    assert network.leader_address("train", "ml") == "train-0.train.ml.svc"
    service = network.service_name("3.1")
    assert network.leader_address("3.1", "ml") == f"{service}-0.{service}.ml.svc"


def test_service_is_headless_owned_and_lists_pods_before_they_are_ready() -> None:
    body = network.service(make.workload("train"))

    assert body["metadata"]["name"] == "train"
    assert body["metadata"]["namespace"] == "ml"
    assert body["metadata"]["labels"]["gpufleet.dev/workload"] == "train"
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-train", True, True)
    assert body["spec"] == {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"gpufleet.dev/workload": "train"},
    }
