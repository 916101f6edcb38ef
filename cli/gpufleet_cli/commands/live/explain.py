"""`gpufleet explain WORKLOAD|POD`."""

from dataclasses import dataclass

from gpufleet_cli.cluster.failures import near
from gpufleet_cli.cluster.kinds import EVENTS, PODS, TELEMETRY, WORKLOADS
from gpufleet_cli.cluster.object_lists import ObjectLists
from gpufleet_cli.commands.live.reading import read, scope, view_of
from gpufleet_cli.errors import MissingObjectError
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.live import shapes
from gpufleet_cli.output.rendering import OutputOptions, Rendering, write
from gpufleet_cli.output.terminal import Screen
from gpufleet_cli.view.event_view import EventView, events_of
from gpufleet_cli.view.fleet_view import FleetView
from gpufleet_cli.view.lookup import ELSEWHERE, names, split_name
from gpufleet_cli.view.pod_view import PodView
from gpufleet_cli.view.reasons import explain_pod, explain_workload, waiting_facts
from gpufleet_cli.view.workload_view import WorkloadView


@dataclass(frozen=True, slots=True)
class _Subject:
    """A workload, a pod, or a pod with its workload."""

    workload: WorkloadView | None
    pod: PodView | None


def explain(target: Target, name: str, output: OutputOptions) -> None:
    """Prints why a workload or pod waits, and why it has its devices."""
    space, bare = split_name(name, scope(target) or "default")
    required = [] if target.saved else [WORKLOADS]
    lists = read(target, required, [*({WORKLOADS} - set(required)), PODS, TELEMETRY, EVENTS], space)
    view = view_of(lists, PODS)
    subject = _find(view, space, bare, only_pod=name.split("/", maxsplit=1)[0] in ("pod", "pods", "po"))

    def draw(screen: Screen, _wide: bool) -> None:
        if subject.pod is not None:
            used = [
                gpu for gpu in view.gpus if any((u.namespace, u.pod) == (space, subject.pod.name) for u in gpu.uses)
            ]
            screen.tree(explain_pod(view, subject.pod, _events(lists, view, _Subject(None, subject.pod)), used))
        if subject.workload is not None:
            replica = subject.pod.replica if subject.pod is not None else None
            events = _events(lists, view, subject) if subject.pod is None else []
            screen.tree(explain_workload(view, subject.workload, events, replica))

    def shape() -> shapes.Json:
        workload = subject.workload
        return {
            "pod": subject.pod.name if subject.pod is not None else None,
            "workload": shapes.workload(view, workload) if workload is not None else None,
            "reasons": [fact.text for fact in waiting_facts(workload)] if workload is not None else [],
            "explanation": dict(workload.explanation) if workload is not None else {},
            "events": [shapes.event(one) for one in _events(lists, view, subject)],
        }

    kind = "pod" if subject.pod is not None else "gpuworkload.gpufleet.dev"
    write(Rendering(shape, lambda: [f"{kind}/{bare}"], draw), output.format, headers=output.headers)


def _find(view: FleetView, namespace: str, name: str, *, only_pod: bool) -> _Subject:
    workload, pod = view.workloads.get((namespace, name)), view.pods.get((namespace, name))
    if workload is not None and not only_pod:
        return _Subject(workload, None)
    if pod is not None:
        return _Subject(view.workloads.get((namespace, pod.workload)) if pod.workload else None, pod)
    known = [*names(view.workloads, namespace), *names(view.pods, namespace)]
    hint = near(name, known) or ELSEWHERE
    raise MissingObjectError(f'no GPUWorkload or pod "{name}" in namespace {namespace}{hint}')


def _events(lists: ObjectLists, view: FleetView, subject: _Subject) -> list[EventView]:
    about = [("Pod", subject.pod.name)] if subject.pod is not None else []
    if subject.workload is not None:
        about += [("GPUWorkload", subject.workload.name)]
        about += [("Pod", pod.name) for pod in view.pods_of(subject.workload)]
    return events_of(lists.of(EVENTS), about)
