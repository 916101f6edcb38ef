"""The kind provider: the same cluster in Docker containers."""
