import json

import pytest

from gpufleet_agent.dra.prepared_claim import dump_checkpoint, load_checkpoint
from gpufleet_testing.agent.dra import prepared

CLAIM = prepared("a", "GPU-0", "GPU-1", memory_mib=500)


def test_checkpoint_has_the_whole_claim() -> None:
    assert load_checkpoint(dump_checkpoint(CLAIM)) == CLAIM


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"version": 2}, "version: Invalid value: 2: must be 1"),
        ({"devices": None}, "TypeError"),
        ({"pods": [{}]}, "KeyError"),
        ({"env": []}, "AttributeError"),
    ],
)
def test_damaged_checkpoint_is_rejected_with_the_reason(damage: dict[str, object], message: str) -> None:
    document = {**json.loads(dump_checkpoint(CLAIM)), **damage}
    with pytest.raises(ValueError, match=message):
        load_checkpoint(json.dumps(document))
    with pytest.raises(ValueError, match="Expecting"):
        load_checkpoint("{")
