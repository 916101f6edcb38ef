"""The local provider: real Kubernetes binaries in namespaces of their own, on this machine."""
