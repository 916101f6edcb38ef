"""Detects pods that use more memory of a shared device than they were promised. Usage is reported, not limited."""
