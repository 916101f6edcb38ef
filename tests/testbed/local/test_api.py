from typing import Any

from gpufleet_testbed.local.api import ready_nodes


def node(name: str, **conditions: str) -> dict[str, Any]:
    found = [{"type": kind, "status": status} for kind, status in conditions.items()]
    return {"metadata": {"name": name}, "status": {"conditions": found}}


def test_only_nodes_whose_ready_condition_is_true_are_ready() -> None:
    listing = {
        "items": [
            node("a", Ready="True", DiskPressure="False"),
            node("b", Ready="False"),
            node("c", Ready="Unknown"),
            node("d", DiskPressure="True"),
            {"metadata": {"name": "new"}, "status": {}},
        ]
    }
    assert ready_nodes(listing) == {"a"}
