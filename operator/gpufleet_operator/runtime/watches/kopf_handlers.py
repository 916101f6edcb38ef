"""kopf handlers that apply events of GPUWorkloads to the cache.

Only `on.event` is used, the raw and level-based signal. kopf's change handlers would write annotations and finalizers
to the objects, and keep state in them that decisions derive from the objects themselves.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import kopf
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import User

from gpufleet_api.names import GROUP, VERSION, WORKLOAD_PLURAL
from gpufleet_operator.cache.cache import Cache

RawEvent = Mapping[str, Any]


class NoDiffBase(kopf.DiffBaseStorage):
    """Stores no last state. kopf computes a difference from it even without a change handler."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast("kopf.BodyEssence", {})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


class NoProgress(kopf.ProgressStorage):
    """Stores no progress of handlers."""

    def fetch(self, **_: Any) -> None:
        pass

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class RepeatedLists:
    """Detects when kopf lists GPUWorkloads again. kopf does not report those that were deleted between the two lists.

    kopf lists again when a watch is too old for the apiserver, as after an outage, and passes each object on as an
    event without a type.
    """

    def __init__(self) -> None:
        self.found = asyncio.Event()
        """Set after such a list."""
        self._listed: set[str] = set()

    def note(self, uid: str) -> None:
        """Records an object of a list."""
        if uid in self._listed:
            self._listed.clear()
            self.found.set()
        self._listed.add(uid)


def settings() -> kopf.OperatorSettings:
    """Returns settings with which kopf only observes."""
    found = kopf.OperatorSettings()
    found.scanning.disabled = True  # needs no permissions on namespaces and CRDs
    found.posting.enabled = False  # the operator records its own events
    found.persistence.diffbase_storage = NoDiffBase()
    found.persistence.progress_storage = NoProgress()
    found.peering.standalone = True
    found.watching.chunk_size = 250
    found.watching.server_timeout = 300
    found.networking.request_timeout = 15
    found.execution.default_backoff = 5
    found.queueing.idle_timeout = 1
    return found


def registry(
    cache: Cache, config: SingleConfig, lists: RepeatedLists, crash: Callable[[Exception], None]
) -> kopf.OperatorRegistry:
    """Returns the handlers. kopf's default registry would log in with the official client.

    Args:
        cache: Its GPUWorkloads are updated.
        config: Address and credentials of the apiserver.
        lists: Of this run of kopf.
        crash: Ends the process. kopf would log the exception and continue, leaving the cache stale for this object.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection(config)

    @kopf.on.event(GROUP, VERSION, WORKLOAD_PLURAL, registry=handlers)
    async def workload(event: RawEvent, **_: Any) -> None:
        body = event["object"]
        try:
            if event["type"] is None:
                lists.note(body["metadata"]["uid"])
            if event["type"] == "DELETED":
                cache.workloads.delete(body)
            else:
                cache.workloads.apply(body)
        except Exception as error:  # of any kind: the cache may have missed an event (see `crash`)
            crash(error)
            raise

    return handlers


def connection(config: SingleConfig) -> kopf.ConnectionInfo:
    """Returns credentials for kopf from the configuration of our client, so that both log in the same way.

    kopf's own service account login resolves `kubernetes.default.svc`, which requires a working cluster DNS. kopf calls
    this again after a 401, so a rotated token is read again.
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
