"""Writes the bill of materials of an image as SPDX 2.3: `python -m gpufleet_testing.sbom IMAGE`; needs docker.

The image itself is asked: the Python distributions and the Debian packages that it contains.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_PYTHON = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
_DEBIAN = ("dpkg-query", "--show", "--showformat=${Package} ${Version}\\n")

_PURL = {"pypi": "pkg:pypi/{name}@{version}", "deb": "pkg:deb/debian/{name}@{version}"}


@dataclass(frozen=True)
class Contents:
    """Versions of what an image contains, by name."""

    python: Mapping[str, str]
    debian: Mapping[str, str]


def read_contents(execute: Callable[..., str]) -> Contents:
    """Reads the packages of an image.

    Args:
        execute: Runs a command in the image and returns its output.
    """
    return Contents(_versions(execute("python3", "-c", _PYTHON)), _versions(execute(*_DEBIAN)))


def document(image: str, digest: str, contents: Contents, created: datetime) -> dict[str, object]:
    """Builds the SPDX document of an image.

    Args:
        image: Name of the image.
        digest: Its digest, like `sha256:...`.
        contents: What it contains.
        created: Time of the document.
    """
    packages = [
        *(_package("deb", name, version) for name, version in sorted(contents.debian.items())),
        *(_package("pypi", name.lower(), version) for name, version in sorted(contents.python.items())),
    ]
    root = {
        "SPDXID": "SPDXRef-image",
        "name": image,
        "versionInfo": digest,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
    }
    contains = [
        {"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": package["SPDXID"]}
        for package in packages
    ]
    describes = {
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-image",
    }
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image,
        "documentNamespace": f"https://gpufleet.dev/spdx/{image.rpartition('/')[2]}-{digest.removeprefix('sha256:')}",
        "creationInfo": {
            "created": created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: gpufleet-sbom"],
        },
        "packages": [root, *packages],
        "relationships": [describes, *contains],
    }


def main() -> int:
    """Writes the document to standard output."""
    parser = argparse.ArgumentParser(prog="python -m gpufleet_testing.sbom", description=__doc__)
    parser.add_argument("image", help="an image that the Docker engine has")
    image = parser.parse_args().image

    def docker(*args: str) -> str:
        return subprocess.run(["docker", *args], check=True, stdout=subprocess.PIPE, text=True).stdout

    digest = docker("image", "inspect", "--format={{.Id}}", image).strip()
    contents = read_contents(lambda *command: docker("run", "--rm", "--network=none", image, *command))
    sys.stdout.write(json.dumps(document(image, digest, contents, datetime.now(UTC)), indent=2) + "\n")
    return 0


def _versions(text: str) -> dict[str, str]:
    return {name: version for name, _, version in (line.partition(" ") for line in text.splitlines())}


def _package(kind: str, name: str, version: str) -> dict[str, object]:
    return {
        "SPDXID": f"SPDXRef-{kind}-{re.sub('[^A-Za-z0-9.-]', '-', name)}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": _PURL[kind].format(name=name, version=version),
            }
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
