"""Fakes of the agent's peers on real sockets, without a cluster.

    apiserver  HTTPS on 127.0.0.1: the node's object with its watch, and a count of writes
    kubelet    unix sockets: plugin registration, device lists and PodResources
    node       both, and the agent's process
    process    CPU and memory of a process, from /proc

For benchmarks of the agent. Behavior of Kubernetes is tested with the real binaries.
"""
