"""The agent that runs on every GPU node."""

import importlib
import sys


def _load_without(module: str, optional: str) -> None:
    """Load a library as it is where an optional dependency of it isn't installed."""
    if module not in sys.modules and optional not in sys.modules:
        sys.modules[optional] = None  # type: ignore[assignment] # Python's own way to make an import fail
        try:
            importlib.import_module(module)
        finally:
            del sys.modules[optional]


# rich makes prettier tracebacks, which a daemon has no use for: 7 MiB and 0.2 s.
_load_without("structlog", "rich")
# HTTP/2, which lightkube uses only on request: 1 MiB.
_load_without("httpcore2", "h2")
