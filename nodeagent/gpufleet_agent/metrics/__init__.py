"""Serves metrics and probes, without I/O."""
