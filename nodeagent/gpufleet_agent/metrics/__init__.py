"""What Prometheus and the probes are told, all of it from memory."""
