"""The checkpoint as text."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.devices.base import DeviceInfo, Recovery
from gpufleet_agent.faults.file.format import (
    FORMAT,
    MAX_BYTES,
    MAX_DEVICES,
    CheckpointError,
    NodeCheckpoint,
    decode,
    encode,
    significant_part,
    to_bytes,
    urgent_part,
)
from gpufleet_agent.sampling.saved_state import Checkpoint, FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState
from gpufleet_testing.hypothesis_profiles import examples

WELL = HealthSnapshot(HealthState.HEALTHY)


def kept(index: int = 0, *codes: str, last: float = 20.5, message: str = "XID 79") -> NodeCheckpoint:
    reasons = tuple(HealthReason(code, message, 10.25, Recovery.RESET) for code in codes)
    info = DeviceInfo("GPU-0", index, "Sim", None, None, "0000:1B:00.0", memory_total_mib=80, parent="P", profile="1g")
    health = HealthSnapshot(HealthState.UNHEALTHY, reasons, 10.25) if reasons else WELL
    past = SavedState(30.125, "580.1", {"GPU-0": SavedDevice(info, health, dict.fromkeys(codes, last))})
    marks = {FaultAcknowledgment(5.0, "GPU-0"): 5.0, FaultAcknowledgment(9.0): 0.0}
    return NodeCheckpoint(Checkpoint(past, marks, frozenset({28.5, 29.5})), "node-1", "boot-1")


def test_what_was_kept_is_read_again() -> None:
    for one in (kept(), kept(3, "DeviceLost", "XidError"), replace(kept(), boot_id=None)):
        assert decode(to_bytes(encode(one))) == one


seconds = st.floats(0, 4e9)
words = st.text(max_size=300)  # of which some are too long to be a name
optional = st.none() | words
reasons = st.builds(HealthReason, words, words, seconds, st.sampled_from(Recovery))
infos = st.builds(
    DeviceInfo, uuid=words, index=st.integers(0, 65535), model=words, pci_bus_id=optional, parent=optional,
    profile=optional, memory_total_mib=st.none() | st.integers(),
)  # fmt: skip


@examples(25)
@given(infos, st.lists(reasons, max_size=12, unique_by=lambda reason: reason.code), seconds, words)
def test_encoded_checkpoint_is_decodable_and_stable(
    info: DeviceInfo, faults: list[HealthReason], reported: float, node: str
) -> None:
    health = HealthSnapshot(HealthState.UNHEALTHY, tuple(faults), None) if faults else WELL
    first = NodeCheckpoint(Checkpoint(SavedState(reported, None, {info.uuid: SavedDevice(info, health)})), node, "b")
    text = to_bytes(encode(first))
    assert to_bytes(encode(decode(text))) == text


NAMES = {"uuid": 96, "code": 64, "pciBusId": 32, "parent": 96, "model": 256, "message": 256}


@pytest.mark.parametrize(("field", "most"), NAMES.items())
def test_text_beyond_the_limits_of_the_status_is_rejected(field: str, most: int) -> None:
    def with_text(text: str) -> dict[str, Any]:
        document = encode(kept(0, "XidError"))
        device = document["devices"][0]
        holder = device if field in device else device["faults"][0]
        holder[field] = text
        return document

    longest = with_text("x" * most)
    assert encode(decode(to_bytes(longest))) == longest
    for text in ("x" * (most + 1), "\ud800", *([""] if field in {"uuid", "code"} else [])):
        with pytest.raises(CheckpointError):
            decode(to_bytes(with_text(text)))


def test_invalid_device_name_is_left_out_and_others_kept() -> None:
    usual = kept(0, "XidError")
    devices = dict(usual.checkpoint.state.devices)
    for uuid in ("", "x" * 97):
        devices[uuid] = replace(devices["GPU-0"], info=replace(devices["GPU-0"].info, uuid=uuid))
    past = replace(usual.checkpoint.state, devices=devices)
    marks = {**usual.checkpoint.acknowledgments, FaultAcknowledgment(7.0, "x" * 97): 7.0}
    odd = replace(usual, checkpoint=replace(usual.checkpoint, state=past, acknowledgments=marks))
    assert decode(to_bytes(encode(odd))) == usual


@pytest.mark.parametrize(("devices", "faults"), [(257, 1), (1, 9)])
def test_more_than_is_ever_written_is_rejected(devices: int, faults: int) -> None:
    document = encode(kept(0, "XidError"))
    (device,) = document["devices"]
    device["faults"] *= faults
    document["devices"] *= devices
    with pytest.raises(CheckpointError, match="entries: must have at most"):
        decode(to_bytes(document))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", f"format is None, not {FORMAT}"),
        (b'{"format": "gpufleet-faults/2"}', "format is gpufleet-faults/2"),
        (b'{"format": "gpufleet-faults/1"}', "KeyError: 'devices'"),
        (b" " * (MAX_BYTES + 1), f"longer than {MAX_BYTES} bytes"),
    ],
)
def test_foreign_content_is_rejected_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        decode(content)


def torn() -> list[bytes]:
    text = to_bytes(encode(kept(0, "XidError")))
    return [text[:length] for length in range(0, len(text) - 2, 7)]


def test_a_torn_file_is_rejected_wherever_it_ends() -> None:
    for content in torn():
        with pytest.raises(CheckpointError):
            decode(content)


ODD: list[Any] = [None, True, 5, -1.5, 1e300, 10**400, "x", [], {}, [None], [[]], [{}], "NaN"]


def paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += paths(item, (*path, key))
    return found


def test_any_unexpected_value_is_rejected_or_encodable_again() -> None:
    usual = encode(kept(0, "XidError"))
    for path in paths(usual):
        for odd in ODD:
            document = json.loads(json.dumps(usual))
            at = document
            for step in path[:-1]:
                at = at[step]
            at[path[-1]] = odd
            try:
                again = decode(json.dumps(document).encode())
            except CheckpointError:
                continue
            assert decode(to_bytes(encode(again))) == again, (path, odd)


def test_it_is_bounded_and_devices_with_faults_come_first() -> None:
    sick = kept(0, "XidError", message="x" * 10_000).checkpoint.state.devices["GPU-0"]
    devices = {f"GPU-{index:04}": replace(sick, health=WELL) for index in range(1000)}
    devices = {uuid: replace(one, info=replace(one.info, uuid=uuid)) for uuid, one in devices.items()}
    devices["GPU-zzzz"] = replace(sick, info=replace(sick.info, uuid="GPU-zzzz"))
    document = encode(NodeCheckpoint(Checkpoint(SavedState(1.0, None, devices)), "n", None))
    assert len(document["devices"]) == MAX_DEVICES
    assert document["devices"][0]["uuid"] == "GPU-zzzz"
    assert len(document["devices"][0]["faults"][0]["message"]) == 256


def test_what_is_worth_writing_and_what_at_once() -> None:
    base, again = encode(kept(0, "XidError")), encode(kept(0, "XidError", last=25, message="XID 48"))
    assert significant_part(base) != significant_part(again)
    assert urgent_part(base) == urgent_part(again), "the same fault, seen once more"
    assert urgent_part(base) != urgent_part(encode(kept()))
    later = encode(NodeCheckpoint(replace(kept().checkpoint, reports=frozenset({40.0})), "node-1", "boot-1"))
    later["written"] = 50.0
    assert significant_part(later) == significant_part(encode(kept())), "time alone"
    lost = kept(0, "DeviceLost").checkpoint
    device = replace(lost.state.devices["GPU-0"], last_seen={})  # only events have one
    sooner, later = (
        encode(
            NodeCheckpoint(
                replace(lost, state=replace(lost.state, reported_at=at, devices={"GPU-0": device})), "n", None
            )
        )
        for at in (40.0, 50.0)
    )
    assert significant_part(sooner) == significant_part(later), "a device that is still lost is no news"
