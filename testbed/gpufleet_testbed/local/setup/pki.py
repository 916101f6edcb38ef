"""Creates the certificates of a cluster with openssl: a new authority for each start, valid for a year."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.local.layout import Layout

_CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = unused
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
authorityKeyIdentifier = keyid
"""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "365")


@dataclass(frozen=True)
class Certificate:
    """A certificate to create: `NAME.crt` and `NAME.key`, signed by `authority`."""

    name: str
    common_name: str
    organization: str | None = None
    sans: tuple[str, ...] = ()
    """Subject alternative names in openssl's form, `IP:...` or `DNS:...`."""
    authority: str = "ca"

    @property
    def subject(self) -> str:
        """The subject in openssl's form."""
        organization = f"/O={self.organization}" if self.organization else ""
        return f"{organization}/CN={self.common_name}"


def certificates(layout: Layout) -> list[Certificate]:
    """Returns the certificates of all components; the common names are those of Kubernetes."""
    service = "kubernetes.default.svc"
    api_sans = (
        "DNS:localhost",
        *(f"DNS:{name}" for name in ("kubernetes", "kubernetes.default", service, f"{service}.cluster.local")),
        *(f"IP:{address}" for address in ("127.0.0.1", layout.api_address, "10.96.0.1")),
    )
    nodes = [
        Certificate(node.name, f"system:node:{node.name}", "system:nodes", (f"IP:{node.address}", f"DNS:{node.name}"))
        for node in layout.node_layouts
    ]
    return [
        Certificate("apiserver", "kube-apiserver", sans=api_sans),
        Certificate("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
        Certificate("front-proxy", "front-proxy-client", authority="front-proxy-ca"),
        Certificate("admin", "admin", "system:masters"),
        Certificate("controller-manager", "system:kube-controller-manager"),
        Certificate("scheduler", "system:kube-scheduler"),
        Certificate("proxy", "system:kube-proxy"),
        *nodes,
    ]


def authority_command(name: str, folder: Path) -> list[str]:
    """Returns the openssl command line that creates a self-signed authority."""
    return [
        "openssl", "req", "-x509", *_NEW_KEY, "-config", str(folder / "openssl.cnf"), "-extensions", "authority",
        "-subj", f"/CN={name}", "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"),
    ]  # fmt: skip


def leaf_command(certificate: Certificate, folder: Path) -> list[str]:
    """Returns the openssl command line that creates a key and a signed certificate (OpenSSL 3)."""
    sans = ["-addext", f"subjectAltName={','.join(certificate.sans)}"] if certificate.sans else []
    authority = folder / certificate.authority
    return [
        "openssl", "req", "-x509", *_NEW_KEY, "-config", str(folder / "openssl.cnf"), "-extensions", "leaf",
        "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-subj", certificate.subject, *sans,
        "-keyout", str(folder / f"{certificate.name}.key"), "-out", str(folder / f"{certificate.name}.crt"),
    ]  # fmt: skip


def make_pki(layout: Layout, runner: Runner = run) -> None:
    """Creates all keys and certificates in `layout.pki`."""
    folder = layout.pki
    folder.mkdir(mode=0o700, parents=True)
    (folder / "openssl.cnf").write_text(_CONFIG)

    def together(commands: Sequence[list[str]]) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(runner, commands))

    key = str(folder / "service-accounts.key")
    together(
        [
            authority_command("ca", folder),
            authority_command("front-proxy-ca", folder),
            ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key],
        ]
    )
    together(
        [
            *(leaf_command(certificate, folder) for certificate in certificates(layout)),
            ["openssl", "pkey", "-in", key, "-pubout", "-out", str(folder / "service-accounts.pub")],
        ]
    )
