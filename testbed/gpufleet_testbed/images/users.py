"""The account files of the images: root and an unprivileged user."""

from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NONROOT = "65532:65532"
"""User and group of the unprivileged account, in the form of an image's default user."""


def write_users(root: Path) -> None:
    """Writes etc/passwd and etc/group below `root`, and creates a world-writable /tmp."""
    etc = root / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text("root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\nnonroot:x:65532:\n")
    tmp = root / "tmp"
    tmp.mkdir(exist_ok=True)
    tmp.chmod(0o1777)
