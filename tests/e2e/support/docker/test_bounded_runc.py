from pathlib import Path

import pytest

from gpufleet_e2e.support.docker import bounded_runc

ALL = {"CAP_KILL", "CAP_SYS_RESOURCE"}


def test_missing_capabilities_are_read_from_the_bounding_set() -> None:
    assert bounded_runc.missing("CapEff:\t0\nCapBnd:\t000001fffeffffff\n") == {"CAP_SYS_RESOURCE"}
    assert bounded_runc.missing("CapBnd:\t000001ffffffffff\n") == set()


@pytest.mark.parametrize("nested", [True, False], ids=["container", "exec"])
def test_only_missing_capabilities_are_left_out(*, nested: bool) -> None:
    def spec(*names: str) -> dict[str, object]:
        process: dict[str, object] = {
            "args": ["sh"],
            "capabilities": {"bounding": list(names), "effective": list(names)},
        }
        return {"root": {}, "process": process} if nested else process

    assert bounded_runc.without(spec("CAP_KILL", "CAP_SYS_RESOURCE"), {"CAP_SYS_RESOURCE"}) == spec("CAP_KILL")


def test_a_process_without_capabilities_stays_as_it_is() -> None:
    assert bounded_runc.without({"args": ["sh"]}, ALL) == {"args": ["sh"], "capabilities": {}}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--log", "x", "create", "--bundle", "/run/b", "id"], Path("/run/b/config.json")),
        (["exec", "--process", "/tmp/p", "id"], Path("/tmp/p")),  # noqa: S108 - a name, not a file
        (["delete", "id"], None),
    ],
)
def test_file_of_a_command(arguments: list[str], expected: Path | None) -> None:
    assert bounded_runc.specification(arguments) == expected
