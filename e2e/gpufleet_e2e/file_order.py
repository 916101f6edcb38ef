"""The order of the tests' files: workers take whole files, and one that takes long and starts last delays the end."""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping

_WITH_PODS_SECONDS = 15
"""A test with a namespace: pods start, run and end."""
_SCENARIO_SECONDS = 40
"""A test with a namespace in a file of few: it has many steps, or waits."""
_FEW = 3
_OWN_CLUSTER_SECONDS = 40
"""A test that starts a cluster or builds an image."""
_REQUEST_SECONDS = 0.5
"""A test that only sends requests or renders the chart."""


def expected_seconds(tests: Iterable[tuple[Hashable, Collection[str]]]) -> Mapping[Hashable, float]:
    """Returns roughly how long each file takes, from the fixtures of its tests.

    Args:
        tests: File and names of all fixtures of each test.
    """
    listed = list(tests)
    sizes = Counter(file for file, _ in listed)
    total: dict[Hashable, float] = dict.fromkeys(sizes, 0.0)
    for file, fixtures in listed:
        if "namespace" in fixtures:
            total[file] += _SCENARIO_SECONDS if sizes[file] <= _FEW else _WITH_PODS_SECONDS
        else:
            total[file] += _REQUEST_SECONDS if "cluster" in fixtures else _OWN_CLUSTER_SECONDS
    return total
