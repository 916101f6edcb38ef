"""Writes what the node's GPUs are doing into the status of its GPUTelemetry object."""
