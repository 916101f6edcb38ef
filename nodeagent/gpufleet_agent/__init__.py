"""The agent that runs on every GPU node."""

import os
import sys

# gRPC's C core writes lines of its own to stderr, which is for our events; what matters of it comes as an exception.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# structlog loads rich, where it is installed, for prettier tracebacks: 7 MiB and 0.2 s that a daemon has no use for.
if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment] # Python's own way to make an import fail
    import structlog as structlog

    del sys.modules["rich"]
