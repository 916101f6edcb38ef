from gpufleet_operator.cache.claim_store import ClaimStore
from gpufleet_operator.cache.decode_claim import resource_claim
from gpufleet_operator.model.claims.resource_claim import ResourceClaim


def claim(uid: str, version: int, *, pod: str = "pod", name: str = "c") -> ResourceClaim:
    return ResourceClaim(uid, "ml", name, str(version), pod_uid=pod)


def store() -> ClaimStore:
    return ClaimStore(resource_claim, lambda: None)


def test_claim_that_was_created_again_replaces_the_deleted_one() -> None:
    """The deletion may be noticed after the creation."""
    found = store()
    found.put(claim("old", 1))
    found.put(claim("new", 3))
    found.remove("old", "2")
    assert found.by_pod == {"pod": {"c": claim("new", 3)}}


def test_pod_without_claims_has_no_entry() -> None:
    found = store()
    found.put(claim("one", 1))
    found.put(claim("two", 2, name="d"))
    found.remove("one", "3")
    found.remove("two", "4")
    assert found.by_pod == {}
