"""Serves metrics and probes, from memory."""
