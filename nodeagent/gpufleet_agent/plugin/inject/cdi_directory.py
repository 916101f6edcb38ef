"""Writes files into a directory that container runtimes read at any time."""

from pathlib import Path


def replace_file(path: Path, content: bytes) -> bool:
    """Writes a file so that it appears complete; returns whether it did not have this content already.

    Raises:
        OSError: The file cannot be written.
    """
    try:
        # Bytes, because a file of another program may not be text.
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    part.write_bytes(content)
    part.rename(path)
    return True


def remove_file(path: Path) -> None:
    """Removes a file, and the temporary file of a process that was killed while writing it.

    Raises:
        OSError: A file cannot be removed.
    """
    path.unlink(missing_ok=True)
    _part(path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    """Returns the file of a write in progress. Runtimes read only names that end in .json or .yaml."""
    return path.with_name(f"{path.name}.part")
