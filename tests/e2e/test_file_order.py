"""Files that take long are first."""

from gpufleet_e2e.file_order import expected_seconds

PODS = ("cluster", "fleet", "namespace", "request")
REQUESTS = ("chart", "cluster", "request")


def test_files_are_weighed_by_what_their_tests_need() -> None:
    tests = [("requests", REQUESTS)] * 40 + [("pods", PODS)] * 5 + [("scenario", PODS)] + [("clusters", ())] * 3

    found = expected_seconds(tests)

    assert sorted(found, key=lambda file: -found[file]) == ["clusters", "pods", "scenario", "requests"]


def test_pods_take_longer_than_as_many_requests() -> None:
    found = expected_seconds([("requests", REQUESTS)] * 8 + [("pods", PODS)] * 8)
    assert found["pods"] > found["requests"]
