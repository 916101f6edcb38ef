"""The patches that take a GPU out of service and return it, and acknowledge faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION
from gpufleet_operator.model.lenient_json import Json, as_map, maps, text

JsonPatch = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class CordonRequest:
    """Entry for a device. Values that are None keep those of an entry that exists."""

    uuid: str
    reason: str | None
    by: str | None = None
    until: str | None = None
    drain: bool | None = None


def cordon_patch(telemetry: Json, request: CordonRequest) -> JsonPatch:
    """Returns the patch that adds or changes the entry of a device; empty when it is as requested.

    The patch fails when the spec has changed since `telemetry` was read.
    """
    entries = _entries(telemetry)
    existing: Mapping[str, Any] = next((e for e in entries if e.get("uuid") == request.uuid), {})
    entry = {"uuid": request.uuid, "reason": request.reason or text(existing.get("reason")), **_rest(existing)}
    given = {"by": request.by, "until": request.until, "drain": request.drain}
    entry |= {name: value for name, value in given.items() if value is not None}
    if entry == dict(existing):
        return []
    return _patch(telemetry, [*(e for e in entries if e.get("uuid") != request.uuid), entry])


def uncordon_patch(telemetry: Json, uuid: str) -> JsonPatch:
    """Returns the patch that removes the entry of a device; empty when there is none."""
    entries = _entries(telemetry)
    left = [entry for entry in entries if entry.get("uuid") != uuid]
    return _patch(telemetry, left) if len(left) < len(entries) else []


def acknowledgment(telemetry: Json, uuid: str | None) -> str:
    """Returns the value of the annotation that acknowledges all faults of the node, or of one device, until its report.

    Entries for other devices are kept.
    """
    until = text(as_map(telemetry.get("status")).get("observedAt"))
    if uuid is None:
        return until
    annotations = as_map(as_map(telemetry.get("metadata")).get("annotations"))
    before = [e.strip() for e in text(annotations.get(ACKNOWLEDGED_FAULTS_ANNOTATION)).split(",") if e.strip()]
    return ",".join([*(entry for entry in before if not entry.startswith(f"{uuid}=")), f"{uuid}={until}"])


def _rest(existing: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in existing.items() if name not in ("uuid", "reason")}


def _entries(telemetry: Json) -> list[Json]:
    return list(maps(as_map(telemetry.get("spec")).get("cordoned")))


def _patch(telemetry: Json, entries: Sequence[Mapping[str, Any]]) -> JsonPatch:
    meta, spec = as_map(telemetry.get("metadata")), telemetry.get("spec")
    tests: JsonPatch = [
        {"op": "test", "path": f"/metadata/{name}", "value": meta[name]}
        for name in ("uid", "generation")
        if meta.get(name) is not None
    ]
    if spec is None:
        return [*tests, {"op": "add", "path": "/spec", "value": {"cordoned": list(entries)}}]
    return [*tests, {"op": "add", "path": "/spec/cordoned", "value": list(entries)}]
