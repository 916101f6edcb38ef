"""Finds the pods of the node's processes, by their cgroups."""
