"""Converts Deployments, ReplicaSets, Jobs, JobSets and Pods to GPUWorkloads, with a list of what changed."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gpufleet_api.names import API_VERSION, SCHEDULERS, WORKLOAD_KIND
from gpufleet_api.workload import MAX_NAME
from gpufleet_cli.convert.gpu_request import take_request
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.documents import Document
from gpufleet_operator.model.lenient_json import as_map, maps, number, text

JsonObject = dict[str, Any]

_GENERATED_LABELS: Final = ("controller-uid", "job-name", "pod-template-hash", "batch.kubernetes.io/")


@dataclass(frozen=True, slots=True)
class ConvertedWorkload:
    """A GPUWorkload as a manifest, and what differs from the object that it replaces."""

    manifest: JsonObject
    changes: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    """What a kind contributes to the workload."""

    name: str
    template: JsonObject
    spec: JsonObject = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    restart_policy: str = "Always"


def convertible(document: Document) -> bool:
    """Returns whether there is a conversion for the document's kind."""
    return (document.api_version.partition("/")[0], document.kind) in _KINDS


def convert(document: Document) -> list[ConvertedWorkload]:
    """Returns the GPUWorkloads that replace an object; none when it requests no GPU.

    Raises:
        InputError: The object has something that a GPUWorkload cannot do.
    """
    drafts = _KINDS[document.api_version.partition("/")[0], document.kind](document)
    return [found for draft in drafts if (found := _finish(document, draft)) is not None]


def _finish(document: Document, draft: _Draft) -> ConvertedWorkload | None:
    template = draft.template
    request = take_request(template, f"{document}")
    if request is None:
        return None
    if len(draft.name) > MAX_NAME:
        raise InputError(f"{document}: the name {draft.name} of the GPUWorkload is longer than {MAX_NAME} characters")
    spec = template.setdefault("spec", {})
    spec.setdefault("restartPolicy", draft.restart_policy)
    changes = [*draft.changes, *request.changes]
    scheduler = spec.get("schedulerName")
    if scheduler and scheduler not in SCHEDULERS:
        del spec["schedulerName"]
        changes.append(f"schedulerName {scheduler} removed: add it to operator.schedulers if it is to bind the pods")
    if spec.pop("schedulingGates", None):
        changes.append("schedulingGates removed: the operator adds its own")
    source = as_map(document.body.get("metadata"))
    metadata: JsonObject = {"name": draft.name}
    for name in ("namespace", "labels"):
        if source.get(name):
            metadata[name] = source[name]
    template["metadata"] = _template_metadata(as_map(template.get("metadata")))
    workload_spec = {
        **draft.spec,
        "devices": request.devices,
        # A Service of this name may exist; one of the workload's own would take its name.
        "network": {"enableDNSHostnames": False},
        "template": template,
    }
    manifest = {"apiVersion": API_VERSION, "kind": WORKLOAD_KIND, "metadata": metadata, "spec": workload_spec}
    return ConvertedWorkload(manifest, tuple(changes))


def _template_metadata(meta: Mapping[str, Any]) -> JsonObject:
    labels = {k: v for k, v in as_map(meta.get("labels")).items() if not k.startswith(_GENERATED_LABELS)}
    found: JsonObject = {"labels": labels} if labels else {}
    if meta.get("annotations"):
        found["annotations"] = dict(meta["annotations"])
    return found


def _deployment(document: Document) -> Iterator[_Draft]:
    spec = _spec(document)
    changes = [f"{document.kind} {document.name} is to be deleted: the GPUWorkload makes the pods"]
    changes.append("a HorizontalPodAutoscaler has to name the GPUWorkload, which has the scale subresource")
    own: JsonObject = {"replicas": spec.get("replicas", 1)}
    strategy = as_map(spec.get("strategy"))
    unavailable = as_map(strategy.get("rollingUpdate")).get("maxUnavailable")
    if strategy.get("type") == "Recreate":
        own["updateStrategy"] = {"maxUnavailable": "100%"}
        changes.append("strategy Recreate is now updateStrategy.maxUnavailable 100%")
    elif unavailable not in (None, 0, "0%"):
        own["updateStrategy"] = {"maxUnavailable": unavailable}
    if as_map(strategy.get("rollingUpdate")).get("maxSurge") not in (None, 0, "0%"):
        changes.append("maxSurge is left out: a replaced replica keeps its GPUs, so its successor follows it")
    yield _Draft(document.name, _template(document, spec), own, changes)


def _job(document: Document) -> Iterator[_Draft]:
    changes = [f"Job {document.name} is to be deleted: the GPUWorkload makes the pods"]
    yield _job_draft(document.name, _spec(document), document, changes)


def _job_draft(name: str, spec: Mapping[str, Any], document: Document, changes: list[str], times: int = 1) -> _Draft:
    parallelism, completions = number(spec.get("parallelism", 1)), spec.get("completions")
    replicas = (number(completions) if completions is not None else parallelism) * times
    if completions is not None and number(completions) > parallelism:
        changes.append(f"completions {completions} with parallelism {parallelism}: now {replicas} replicas, which wait")
    if spec.get("completionMode") == "Indexed":
        changes.append("JOB_COMPLETION_INDEX is not set: use GPUFLEET_REPLICA")
    if spec.get("podFailurePolicy") or spec.get("successPolicy"):
        changes.append("podFailurePolicy and successPolicy are left out: see spec.runPolicy")
    policy = {
        key: spec[key]
        for key in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
        if spec.get(key) is not None
    }
    own: JsonObject = {"replicas": replicas}
    if policy:
        own["runPolicy"] = policy
    if spec.get("suspend"):
        own["suspend"] = True
    return _Draft(name, _template(document, spec), own, changes, restart_policy="Never")


def _job_set(document: Document) -> Iterator[_Draft]:
    jobs = list(maps(_spec(document).get("replicatedJobs")))
    for job in jobs:
        name = f"{document.name}-{text(job.get('name'))}"
        changes = [f"replicated job {text(job.get('name'))} of JobSet {document.name} is now a GPUWorkload of its own"]
        changes.append("host names of the JobSet's pods do not exist: use GPUFLEET_LEADER_ADDRESS (spec.network)")
        spec = as_map(as_map(job.get("template")).get("spec"))
        draft = _job_draft(name, spec, document, changes, number(job.get("replicas", 1)))
        draft.spec["placement"] = {"gang": True}
        draft.changes.append("placement.gang is true: the pods get their GPUs together or not at all")
        yield draft


def _pod(document: Document) -> Iterator[_Draft]:
    spec = dict(copy.deepcopy(_spec(document)))
    for key in ("nodeName", "serviceAccount"):
        spec.pop(key, None)
    changes = [f"Pod {document.name} is to be deleted: the GPUWorkload makes its own"]
    template = {"metadata": copy.deepcopy(dict(as_map(document.body.get("metadata")))), "spec": spec}
    yield _Draft(document.name, template, {"replicas": 1}, changes)


def _spec(document: Document) -> Mapping[str, Any]:
    spec = document.body.get("spec")
    if not isinstance(spec, dict):
        raise InputError(f"{document}: spec: Required value")
    return spec


def _template(document: Document, spec: Mapping[str, Any]) -> JsonObject:
    template = spec.get("template")
    if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
        raise InputError(f"{document}: spec.template.spec: Required value")
    return copy.deepcopy(template)


_KINDS: Final[Mapping[tuple[str, str], Callable[[Document], Iterator[_Draft]]]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _deployment,
    ("batch", "Job"): _job,
    ("jobset.x-k8s.io", "JobSet"): _job_set,
    ("v1", "Pod"): _pod,
}
