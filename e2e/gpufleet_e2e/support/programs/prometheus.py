"""A Prometheus server for the time of a test."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.prometheus_package import program

JsonObject = dict[str, Any]

_START_SECONDS = 20
_STOP_SECONDS = 10


@dataclass(frozen=True)
class QueryResult:
    """One series of the answer to an instant query."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """A running server.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = build_opener(ProxyHandler({}))

    def query(self, expression: str) -> list[QueryResult]:
        """Returns the answer to an instant query.

        Raises:
            AssertionError: Prometheus rejects the query.
        """
        found = self._get("query", query=expression)["result"]
        return [QueryResult(one["metric"], float(one["value"][1])) for one in found]

    def number(self, expression: str) -> float:
        """Returns the value of a query that has one series."""
        found = self.query(expression)
        assert len(found) == 1, f"{expression}: {found}"
        return found[0].value

    def by(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Returns the values of a query by these labels, which are different for each series."""
        found = self.query(expression)
        result = {tuple(one.labels.get(label, "") for label in labels): one.value for one in found}
        assert len(result) == len(found), f"{expression}: {found}"
        return result

    def values(self, expression: str, start: float, end: float, step: float) -> list[JsonObject]:
        """Returns the answer to a range query: `metric` and `values` of each series."""
        return list(self._get("query_range", query=expression, start=start, end=end, step=step)["result"])

    def rules(self) -> list[JsonObject]:
        """Returns all rules with their health, and the alerts that fire or are pending."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[JsonObject]:
        """Returns the active targets."""
        return list(self._get("targets", state="active")["activeTargets"])

    def series(self, name: str) -> list[dict[str, str]]:
        """Returns the labels of all series of a name."""
        url = f"{self._url}/api/v1/series?{urlencode({'match[]': name})}"
        return list(self._open(url)["data"])

    def _get(self, path: str, **parameters: object) -> JsonObject:
        answer = self._open(f"{self._url}/api/v1/{path}?{urlencode(parameters)}")
        return dict(answer["data"])

    def _open(self, url: str) -> JsonObject:
        try:
            with self._opener.open(url, timeout=10) as response:
                return dict(json.load(response))
        except HTTPError as error:
            raise AssertionError(f"{url}: {error.read().decode()}") from error


@contextmanager
def prometheus(folder: Path, scrapes: Sequence[Mapping[str, Any]], rules: Mapping[str, Any]) -> Iterator[Prometheus]:
    """Runs a server until the block ends.

    Args:
        folder: For its configuration and data.
        scrapes: Scrape configurations.
        rules: Content of a rule file.
    """
    (folder / "rules.yaml").write_text(yaml.safe_dump(dict(rules)), encoding="utf-8")
    config = {
        "global": {"evaluation_interval": "1s"},
        "scrape_configs": list(scrapes),
        "rule_files": [str(folder / "rules.yaml")],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    address = f"127.0.0.1:{_free_port()}"
    command = [
        str(program("prometheus")),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (
        (folder / "prometheus.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            found = Prometheus(f"http://{address}")
            eventually(lambda: _ready(found, process, folder / "prometheus.log"), within=_START_SECONDS)
            yield found
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


def _ready(found: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.poll() is None, log.read_text(encoding="utf-8")[-2000:]
    try:
        found.targets()
    except OSError as error:
        raise AssertionError(f"Prometheus does not answer: {error}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
