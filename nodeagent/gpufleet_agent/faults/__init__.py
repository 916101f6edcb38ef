"""Faults that survive a restart of the agent: restored from the status and from a fault file on the node."""
