"""A Docker Engine for tests, and the images that it needs on a machine without a registry."""
