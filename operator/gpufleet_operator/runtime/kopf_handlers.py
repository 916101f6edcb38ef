"""kopf: tells the caches what happens to our objects. Handlers translate and note, nothing more.

Only `on.event` is used: the raw, level-like signal. kopf's change handlers would write annotations and finalizers
onto the objects, and remember in them what we decide from the state alone.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import kopf
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import User

from gpufleet_api.names import GROUP, TELEMETRY_PLURAL, VERSION, WORKLOAD_LABEL, WORKLOAD_PLURAL
from gpufleet_operator.cache.cache import Cache, identity

Event = Mapping[str, Any]


class NoDiffBase(kopf.DiffBaseStorage):
    """kopf compares each object with its last state even without a change handler: nothing to compare, no work."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """An empty essence."""
        return cast("kopf.BodyEssence", {})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Never seen before."""
        return None

    def store(self, **_: Any) -> None:
        """Nothing is written onto objects."""


class NoProgress(kopf.ProgressStorage):
    """As NoDiffBase, for the progress of handlers."""

    def fetch(self, **_: Any) -> None:
        """No progress is kept."""

    def store(self, **_: Any) -> None:
        """Nothing is written onto objects."""

    def purge(self, **_: Any) -> None:
        """Nothing to purge."""

    def touch(self, **_: Any) -> None:
        """Nothing to touch."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """As it is."""
        return essence


def settings() -> kopf.OperatorSettings:
    """Settings that make kopf a pure observer."""
    found = kopf.OperatorSettings()
    found.scanning.disabled = True  # no rights on namespaces and CRDs needed
    found.posting.enabled = False  # we write our own events
    found.persistence.diffbase_storage = NoDiffBase()
    found.persistence.progress_storage = NoProgress()
    found.peering.standalone = True
    found.watching.label_selectors["pods"] = WORKLOAD_LABEL  # on the server: other people's pods never come here
    found.watching.chunk_size = 250
    found.watching.server_timeout = 300
    found.networking.request_timeout = 15
    found.execution.default_backoff = 5
    found.queueing.idle_timeout = 1
    return found


def registry(cache: Cache, config: SingleConfig, crash: Callable[[Exception], None]) -> kopf.OperatorRegistry:
    """The handlers, bound to the caches. A plain registry: the default one would log in by the official client.

    Args:
        cache: what the handlers feed.
        config: where the apiserver is, and who we are.
        crash: ends the process. By itself kopf logs what an event handler raises and goes on, blind for that object.
    """
    handlers = kopf.OperatorRegistry()

    @contextmanager
    def sighted() -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is: the cache may have missed something (see `crash`)
            crash(error)
            raise

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection(config)

    @kopf.on.event(GROUP, VERSION, WORKLOAD_PLURAL, registry=handlers)
    async def workload(event: Event, **_: Any) -> None:
        with sighted():
            if event["type"] == "DELETED":
                cache.workloads.remove(*identity(event["object"]))
            else:
                cache.read_workload(event["object"])

    @kopf.on.event(GROUP, VERSION, TELEMETRY_PLURAL, registry=handlers)
    async def telemetry(event: Event, **_: Any) -> None:
        with sighted():
            if event["type"] == "DELETED":
                cache.telemetry.remove(*identity(event["object"]))
            else:
                cache.read_telemetry(event["object"])

    @kopf.on.event("", "v1", "pods", registry=handlers)
    async def pod(event: Event, **_: Any) -> None:
        with sighted():
            if event["type"] != "DELETED":
                cache.read_pod(event["object"])
            else:
                cache.pod_left(event["object"])

    return handlers


def connection(config: SingleConfig) -> kopf.ConnectionInfo:
    """Credentials for kopf from the configuration that our client uses, so that there is one way to log in.

    Its own service account login asks for `kubernetes.default.svc`, which needs a working cluster DNS. It calls
    this again when the apiserver says 401, so a rotated token is read again.
    """
    cluster, user = config.cluster, config.user or User()
    token = Path(user.token_file).read_text(encoding="utf-8").strip() if user.token_file else user.token

    def located(path: str | None) -> str | os.PathLike[str] | None:
        return config.abs_file(path) if path else None

    return kopf.ConnectionInfo(
        server=cluster.server,
        ca_path=located(cluster.certificate_auth),
        ca_data=None if cluster.certificate_auth else cluster.certificate_auth_data,
        insecure=cluster.insecure or None,
        username=user.username,
        password=user.password,
        scheme="Bearer" if token else None,
        token=token,
        certificate_path=located(user.client_cert),
        certificate_data=None if user.client_cert else user.client_cert_data,
        private_key_path=located(user.client_key),
        private_key_data=None if user.client_key else user.client_key_data,
        default_namespace=config.namespace,
    )
