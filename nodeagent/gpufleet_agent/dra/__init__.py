"""Transport DRA: the agent as a driver of dynamic resource allocation."""
