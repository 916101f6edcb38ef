"""The account files of our images: root, and one user without rights."""

from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NONROOT = "65532:65532"
"""User and group of the account without rights, as an image's default."""


def write_users(root: Path) -> None:
    """Write etc/passwd, etc/group and the world-writable /tmp below `root`."""
    etc = root / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text("root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\nnonroot:x:65532:\n")
    tmp = root / "tmp"
    tmp.mkdir(exist_ok=True)
    tmp.chmod(0o1777)
