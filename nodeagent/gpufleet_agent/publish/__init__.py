"""Writes the state of the node's GPUs into the status of its GPUTelemetry object."""
