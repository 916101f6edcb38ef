from gpufleet_agent.dra.claim_registry import ClaimRegistry
from gpufleet_testing.agent.dra import prepared


def test_unprepared_claim_counts_until_its_processes_are_gone() -> None:
    registry = ClaimRegistry()
    one, other = prepared("a", "GPU-0"), prepared("b", "GPU-1")
    registry.load((one,))
    registry.add(other)
    registry.end(one.uid, processes_may_run=True)
    assert registry.prepared == (other,)
    assert registry.others(other.uid) == (one,)
    assert registry.has_ended(one.uid)
    registry.forget(one.uid)
    assert registry.others(other.uid) == ()
    assert registry.has_ended(one.uid), "a late list of the kubelet must not restore it"


def test_unprepared_claim_is_dropped_where_processes_cannot_be_seen() -> None:
    registry = ClaimRegistry()
    registry.add(prepared("a", "GPU-0"))
    registry.end("claim-uid-a", processes_may_run=False)
    assert registry.others("x") == ()
