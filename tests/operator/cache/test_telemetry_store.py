from dataclasses import replace
from datetime import datetime, timedelta

from gpufleet_api.names import Transport
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.model.objects import Telemetry
from gpufleet_testing.operator import make
from gpufleet_testing.operator.decisions import agent_lease
from gpufleet_testing.operator.dra import claims


def test_nodes_with_devices_are_known_by_transport() -> None:
    store = Cache().telemetry
    for found in (claims.dra_telemetry("node-1"), make.telemetry("node-2"), make.telemetry("node-3", devices=0)):
        store.put(found)
    assert store.nodes_with == {Transport.DRA: {"node-1"}, Transport.DEVICE_PLUGIN: {"node-2"}}
    store.put(replace(make.telemetry("node-1"), resource_version="31"))
    assert store.nodes_with == {Transport.DRA: set(), Transport.DEVICE_PLUGIN: {"node-1", "node-2"}}
    store.remove("uid-node-1-telemetry", "")
    assert store.nodes_with == {Transport.DRA: set(), Transport.DEVICE_PLUGIN: {"node-2"}}


REPORTED = make.telemetry("node-1")
LATER = make.NOW + timedelta(seconds=30)


def renewed(cache: Cache, observed_at: str, at: datetime = LATER, version: int = 1) -> datetime | None:
    """Applies a renewal of the Lease; returns when the stored report counts as confirmed."""
    cache.agent_leases.apply(agent_lease("node-1", observed_at, at, version=version))
    return cache.telemetry.by_name["node-1"].confirmed_at


def observed_at(found: Telemetry) -> str:
    return make.telemetry_status(found).observed_at


def test_renewal_confirms_the_report_that_it_names() -> None:
    cache = Cache()
    cache.telemetry.put(REPORTED)
    assert REPORTED.confirmed_at is not None
    assert renewed(cache, observed_at(REPORTED)) == LATER.replace(microsecond=0)
    assert cache.telemetry.newest == LATER.replace(microsecond=0)


def test_renewal_does_not_confirm_another_report() -> None:
    cache = Cache()
    cache.telemetry.put(REPORTED)
    assert renewed(cache, "2026-01-01T00:00:00.000000Z") == REPORTED.confirmed_at


def test_renewal_that_is_older_than_the_report_changes_nothing() -> None:
    cache = Cache()
    cache.telemetry.put(REPORTED)
    assert renewed(cache, observed_at(REPORTED), make.NOW - timedelta(hours=1)) == REPORTED.confirmed_at


def test_report_that_arrives_after_its_renewal_is_confirmed() -> None:
    cache = Cache()
    cache.agent_leases.apply(agent_lease("node-1", observed_at(REPORTED), LATER))
    cache.telemetry.put(REPORTED)
    assert cache.telemetry.by_name["node-1"].confirmed_at == LATER.replace(microsecond=0)


def test_listed_version_of_a_confirmed_report_changes_nothing() -> None:
    cache = Cache()
    cache.telemetry.put(REPORTED)
    renewed(cache, observed_at(REPORTED))
    cache.dirty.clear()
    before = cache.telemetry.by_name["node-1"]

    cache.telemetry.replace([REPORTED], "100")

    assert cache.telemetry.by_name["node-1"] == before
    assert not cache.dirty.is_set()


def test_renewal_counts_as_a_new_measurement() -> None:
    cache, measured = Cache(), []
    cache.telemetry.measured = lambda: measured.append("node-1")
    cache.telemetry.put(REPORTED)
    cache.tracker.take()
    cache.dirty.clear()

    renewed(cache, observed_at(REPORTED))

    changes = cache.tracker.take()
    assert (measured, changes.measured, changes.nodes) == (["node-1"], {"node-1"}, set())
    assert not cache.dirty.is_set()


def test_deleted_lease_leaves_what_it_confirmed() -> None:
    cache = Cache()
    cache.telemetry.put(REPORTED)
    confirmed = renewed(cache, observed_at(REPORTED))
    cache.agent_leases.delete(agent_lease("node-1", observed_at(REPORTED), LATER, version=2))
    assert cache.telemetry.by_name["node-1"].confirmed_at == confirmed
    cache.telemetry.put(replace(REPORTED, resource_version="31", generation=6))
    assert cache.telemetry.by_name["node-1"].confirmed_at == confirmed, "a reservation does not change the report"


def test_later_report_is_not_confirmed_by_what_confirmed_an_earlier_one() -> None:
    cache = Cache()
    cache.telemetry.put(REPORTED)
    renewed(cache, observed_at(REPORTED))
    other = make.telemetry("node-1", age=0.5)
    cache.telemetry.put(replace(other, resource_version="31"))
    assert cache.telemetry.by_name["node-1"].confirmed_at == other.confirmed_at
