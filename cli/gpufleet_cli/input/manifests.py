"""`-f`: reads GPUWorkloads, and rejects what the apiserver or the operator would reject."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_api.names import API_VERSION, GROUP, WORKLOAD_KIND
from gpufleet_api.workload import GPUWorkload
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.cel_rules import violations
from gpufleet_cli.input.decode import decode, reject
from gpufleet_cli.input.documents import Document, read
from gpufleet_cli.input.schema_checks import workload_problems
from gpufleet_common.field_errors import duplicate, invalid, unsupported
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.model.lenient_json import maps
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY, PodPolicy
from gpufleet_operator.model.pod_traits import PodTraits
from gpufleet_operator.placement.model import Request
from gpufleet_operator.pods import labels
from gpufleet_operator.pods.traits import pod_traits
from gpufleet_operator.pods.validate import validate_template

_VOLUMES_OF_NODES = ("persistentVolumeClaim", "ephemeral", "csi", "iscsi", "gcePersistentDisk", "awsElasticBlockStore")
"""Kinds of volumes that only some nodes can have."""
_MAX_SKIPPED = 3
"""Skipped objects that a message names."""
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A workload: its document, its model, and the engine's request for it."""

    document: Document
    model: GPUWorkload
    request: Request
    traits: PodTraits = field(default_factory=PodTraits)
    """Of each of its pods."""

    @property
    def name(self) -> str:
        """Returns `namespace/name`."""
        return self.request.name


@dataclass(frozen=True, slots=True)
class Manifests:
    """The workloads of all files, in order."""

    workloads: tuple[Manifest, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterRules:
    """Configuration of the cluster's operator."""

    resources: Resources = DEFAULTS
    policy: PodPolicy = DEFAULT_POLICY


def load(
    paths: Sequence[Path], rules: ClusterRules, expand: Callable[[Document], Sequence[Document]] = lambda one: (one,)
) -> Manifests:
    """Returns the workloads of these files. Objects of other kinds are skipped with a note.

    Args:
        paths: Files; `-` is stdin.
        rules: What templates may ask for.
        expand: Replaces an object by the GPUWorkloads that have the same pods.

    Raises:
        InputError: A file or a workload cannot be used, a workload occurs twice, or there is none.
    """
    workloads: dict[str, Manifest] = {}
    notes = []
    skipped = []
    for document in (one for given in read(paths) for one in expand(given)):
        if document.kind != WORKLOAD_KIND or document.api_version.partition("/")[0] != GROUP:
            skipped.append(f"{document.kind} {document.name}")
            notes.append(f"{document} ({document.api_version}) skipped: not a {GROUP} {WORKLOAD_KIND}")
            continue
        manifest = check(document, rules)
        if manifest.name in workloads:
            first = workloads[manifest.name].document.where
            raise InputError(f"{document}: {duplicate('metadata.name', manifest.name)} (see {first})")
        workloads[manifest.name] = manifest
        notes += _notes(manifest)
    if not workloads:
        more = f", and {len(skipped) - _MAX_SKIPPED} more" if len(skipped) > _MAX_SKIPPED else ""
        shown = f" (skipped: {', '.join(skipped[:_MAX_SKIPPED])}{more})" if skipped else ""
        raise InputError(f"{', '.join(map(str, paths))}: no {WORKLOAD_KIND} found{shown}")
    return Manifests(tuple(workloads.values()), tuple(notes))


def check(document: Document, rules: ClusterRules) -> Manifest:
    """Returns the workload of a document. Raises InputError for what the apiserver or the operator would reject."""
    if document.api_version != API_VERSION:
        raise InputError(f"{document}: {unsupported('apiVersion', document.api_version, [API_VERSION])}")
    reject(document, workload_problems(document.body))
    model = decode(GPUWorkload, document)
    reject(document, _name_problems(model))
    reject(document, violations(model))
    reject(document, validate_template(model.spec, rules.resources, rules.policy))
    return Manifest(document, model, request(model, resources=rules.resources, policy=rules.policy), _traits(model))


def as_stored(model: GPUWorkload) -> Workload:
    """Returns the workload as the operator has it after its creation."""
    return Workload(
        uid="",
        namespace=model.metadata.namespace or "default",
        name=model.metadata.name,
        generation=1,
        resource_version="",
        created=datetime.fromtimestamp(0, UTC),
        deleting=False,
        model=model,
    )


def _traits(model: GPUWorkload) -> PodTraits:
    """Returns the traits of the first replica's pod; those of the others differ in its index only."""
    workload = as_stored(model)
    given = (model.spec.pod_template.get("metadata") or {}).get("labels") or {}
    return pod_traits(workload.namespace, labels.of_pod(workload, 0, given), model.spec.pod_spec)


def _name_problems(model: GPUWorkload) -> Iterator[str]:
    name = model.metadata.name
    if not _SUBDOMAIN.fullmatch(name):
        yield invalid("metadata.name", name, "must consist of lower case alphanumeric characters, '-' or '.'")


def _notes(manifest: Manifest) -> Iterator[str]:
    if manifest.model.spec.suspend:
        yield f"{manifest.name}: spec.suspend is true; simulated as if it were false"
    if manifest.model.spec.adopts:
        yield f"{manifest.name}: no spec.template; simulated as if its pods requested no CPU and no memory"
    for index, volume in enumerate(maps(manifest.model.spec.pod_spec.get("volumes"))):
        kind = next((k for k in _VOLUMES_OF_NODES if volume.get(k)), None)
        if kind is not None:
            path = f"spec.template.spec.volumes[{index}]"
            yield f"{manifest.name}: {path} ({kind}) not checked: kube-scheduler may reject a node for it"
    if any(term.by_namespace_labels for term in (*manifest.traits.affinity, *manifest.traits.anti_affinity)):
        yield f"{manifest.name}: namespaceSelector of pod affinity not checked: kube-scheduler may reject a node for it"
