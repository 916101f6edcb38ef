"""The node's GPUTelemetry object (reservations to follow, status to write), and events on pods."""
