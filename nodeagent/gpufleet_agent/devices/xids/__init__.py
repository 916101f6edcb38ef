"""NVIDIA's XIDs: the catalog, and which of them are faults."""
