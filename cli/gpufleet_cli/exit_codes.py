"""Exit codes of the commands."""

SUCCESS = 0
NOT_PLACED = 1
"""Not everything is placed; replay: a decision differs."""
PROBLEMS = 1
"""doctor: something is wrong."""
BAD_INPUT = 2
"""Also: the cluster cannot be used."""
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
