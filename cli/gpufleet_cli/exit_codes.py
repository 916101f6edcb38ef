"""Exit codes of the commands."""

SUCCESS = 0
NOT_PLACED = 1
"""Not everything is placed; replay: a decision differs."""
BAD_INPUT = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
