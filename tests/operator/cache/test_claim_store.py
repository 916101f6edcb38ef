from gpufleet_operator.cache.claim_store import ClaimStore
from gpufleet_operator.cache.decode_claim import resource_claim
from gpufleet_operator.model.claims.resource_claim import ResourceClaim


def claim(uid: str, version: int, *, pod: str = "pod", name: str = "c", namespace: str = "ml") -> ResourceClaim:
    return ResourceClaim(uid, namespace, name, str(version), pod_uid=pod)


def store() -> ClaimStore:
    return ClaimStore(resource_claim, lambda: None)


def test_claim_that_was_created_again_replaces_the_deleted_one() -> None:
    """The deletion may be noticed after the creation."""
    found = store()
    found.put(claim("old", 1))
    found.put(claim("new", 3))
    found.remove("old", "2")
    assert found.by_pod == {("ml", "pod"): {"c": claim("new", 3)}}


def test_pod_without_claims_has_no_entry() -> None:
    found = store()
    found.put(claim("one", 1))
    found.put(claim("two", 2, name="d"))
    found.remove("one", "3")
    found.remove("two", "4")
    assert found.by_pod == {}


def test_claim_in_another_namespace_replaces_none() -> None:
    """Users know the uids of others' pods, and can write them as an owner into a claim of their own."""
    found = store()
    found.put(claim("own", 1))
    found.put(claim("forged", 2, namespace="other"))
    assert found.by_pod["ml", "pod"] == {"c": claim("own", 1)}
    found.remove("forged", "3")
    assert found.by_pod == {("ml", "pod"): {"c": claim("own", 1)}}
