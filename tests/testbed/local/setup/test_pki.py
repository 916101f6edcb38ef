import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gpufleet_testbed.local.layout import Layout
from gpufleet_testbed.local.setup.pki import certificates, leaf_command, make_pki


def test_every_component_has_its_identity(layout: Layout) -> None:
    subjects = {certificate.name: certificate.subject for certificate in certificates(layout)}
    assert subjects == {
        "apiserver": "/CN=kube-apiserver",
        "apiserver-kubelet": "/O=system:masters/CN=kube-apiserver-kubelet-client",
        "front-proxy": "/CN=front-proxy-client",
        "admin": "/O=system:masters/CN=admin",
        "controller-manager": "/CN=system:kube-controller-manager",
        "scheduler": "/CN=system:kube-scheduler",
        "proxy": "/CN=system:kube-proxy",
        "node-1": "/O=system:nodes/CN=system:node:node-1",
        "node-2": "/O=system:nodes/CN=system:node:node-2",
    }


def test_server_certificates_contain_their_addresses(layout: Layout) -> None:
    found = {certificate.name: certificate for certificate in certificates(layout)}
    assert {"IP:10.244.0.2", "IP:10.96.0.1", "DNS:kubernetes.default.svc"} <= set(found["apiserver"].sans)
    assert found["node-2"].sans == ("IP:10.244.0.12", "DNS:node-2")
    command = leaf_command(found["node-2"], Path("/pki"))
    assert "subjectAltName=IP:10.244.0.12,DNS:node-2" in command
    assert command[command.index("-CA") + 1] == "/pki/ca.crt"


@pytest.fixture
def pki(layout: Layout, tmp_path: Path) -> Path:
    layout = replace(layout, root=tmp_path, nodes=1)
    make_pki(layout)
    return layout.pki


def test_openssl_certificates_verify_and_are_not_authorities(pki: Path) -> None:
    for authority, name in (("ca", "admin"), ("ca", "node-1"), ("front-proxy-ca", "front-proxy")):
        verify = ["openssl", "verify", "-CAfile", str(pki / f"{authority}.crt"), str(pki / f"{name}.crt")]
        assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    shown = ["openssl", "x509", "-noout", "-text", "-in", str(pki / "node-1.crt")]
    text = subprocess.run(shown, capture_output=True, check=True, text=True).stdout
    assert "CA:FALSE" in text
    assert "IP Address:10.244.0.11, DNS:node-1" in text
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text


def test_keys_are_the_users_alone(pki: Path) -> None:
    assert pki.stat().st_mode & 0o777 == 0o700
    assert (pki / "service-accounts.pub").read_text().startswith("-----BEGIN PUBLIC KEY")
