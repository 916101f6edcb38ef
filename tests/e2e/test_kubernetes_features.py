import pytest

from gpufleet_e2e.kubernetes_features import MUTATING_POLICIES, SHARED_CLAIMS, reason_to_skip


@pytest.mark.parametrize(
    ("kubernetes", "transport", "expected"),
    [
        ("1.34", "DRA", "Kubernetes 1.34: DRAConsumableCapacity is off: a claim takes the whole device"),
        ("1.34", "DevicePlugin", None),
        ("1.34", None, "Kubernetes 1.34: DRAConsumableCapacity is off: a claim takes the whole device"),
        ("1.36", "DRA", None),
        ("1.37", "DRA", None),
    ],
)
def test_feature_of_a_transport_is_missed_with_it_only(
    kubernetes: str, transport: str | None, expected: str | None
) -> None:
    assert reason_to_skip([SHARED_CLAIMS], kubernetes, transport) == expected


def test_first_missing_feature_is_the_reason() -> None:
    assert str(reason_to_skip([SHARED_CLAIMS, MUTATING_POLICIES], "1.35", "DevicePlugin")).startswith(
        "Kubernetes 1.35: MutatingAdmissionPolicy"
    )
    assert reason_to_skip([], "1.34") is None
