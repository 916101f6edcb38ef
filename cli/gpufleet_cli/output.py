"""Results on stdout: one line of JSON for machines."""

import json
from typing import Any

import typer


def write_json(value: Any) -> None:
    """One line, keys in the documented order."""
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
