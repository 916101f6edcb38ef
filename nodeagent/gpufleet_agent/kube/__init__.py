"""The node's own GPUTelemetry object: the reservations that the agent obeys and the status that it writes."""
