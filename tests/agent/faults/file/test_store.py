"""The file on a real file system."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from gpufleet_agent.faults.file.format import MAX_BYTES, CheckpointError
from gpufleet_agent.faults.file.store import CheckpointFile


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_and_directory_are_created_for_the_owner_only(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "a" / "b")
    assert file.read() is None
    file.write(b"one")
    file.write(b"two")
    assert CheckpointFile(tmp_path / "a" / "b").read() == b"two"
    assert names(tmp_path / "a" / "b") == ["faults.json"]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = CheckpointFile(tmp_path)
    file.write(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*{"replace": (Path, "replace"), "fsync": (os, "fsync"), "open": (os, "open")}[step], fail)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"new")
    assert names(tmp_path) == ["faults.json"]
    assert file.read() == b"old"
    assert file.is_as_written()


def test_a_process_that_is_killed_before_the_renaming_has_changed_nothing(tmp_path: Path) -> None:
    CheckpointFile(tmp_path).write(b"old")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Path.replace = lambda *_: os.write(write, b"x") and threading.Event().wait()  # type: ignore[assignment,method-assign] # where it is killed
            CheckpointFile(tmp_path).write(b"new")
        finally:
            os._exit(1)  # never the tests a second time
    os.read(read, 1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert len(names(tmp_path)) == 2, "the part is still there"
    assert CheckpointFile(tmp_path).read() == b"old"
    assert names(tmp_path) == ["faults.json"], "and now it isn't"


def test_two_that_write_at_once_never_make_half_a_file(tmp_path: Path) -> None:
    sizes = {b"a": 300_000, b"b": 200_000}

    def write(letter: bytes) -> None:
        file = CheckpointFile(tmp_path)
        for _ in range(20):
            file.write(letter * sizes[letter])

    threads = [threading.Thread(target=write, args=(letter,)) for letter in sizes]
    for thread in threads:
        thread.start()
    reader = CheckpointFile(tmp_path)
    while any(thread.is_alive() for thread in threads):
        content = reader.path.read_bytes() if reader.path.exists() else b""
        assert content == content[:1] * sizes.get(content[:1], 0)
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["faults.json"]


def test_replaced_or_removed_file_is_detected(tmp_path: Path) -> None:
    file, other = CheckpointFile(tmp_path), CheckpointFile(tmp_path)
    assert file.is_as_written(), "there is none, and none was written"
    file.write(b"ours")
    other.write(b"ours")
    assert not file.is_as_written()
    assert file.read() == b"ours"
    assert file.is_as_written()
    file.path.unlink()
    assert not file.is_as_written()


def test_what_is_no_file_or_too_long_is_rejected_and_set_aside(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path)
    os.mkfifo(file.path)
    with pytest.raises(CheckpointError, match="not a file"):
        file.read()  # and doesn't wait for a writer
    assert file.set_aside() == tmp_path / "faults.json.unreadable"
    file.path.write_bytes(b"x" * (MAX_BYTES + 5))
    assert len(file.read() or b"") == MAX_BYTES + 1, "no more than shows that it is too long"
    file.set_aside()
    assert names(tmp_path) == ["faults.json.unreadable"]
    (tmp_path / "faults.json.unreadable").unlink()
    (file.path / "sub").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="not a file"):
        file.read()
    file.set_aside()
    file.write(b"one")
    with pytest.raises(CheckpointError, match="longer than"):
        file.write(b"x" * (MAX_BYTES + 1))
