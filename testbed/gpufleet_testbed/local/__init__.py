"""The local provider: Kubernetes binaries in separate namespaces of this machine."""
