"""The kind provider: the same cluster in Docker containers, for machines that have Docker."""
