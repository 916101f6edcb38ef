"""What an agent talks to, without a cluster: real sockets with nothing behind them.

    apiserver  HTTPS on 127.0.0.1: the node's own object with its watch, and a count of what is written
    kubelet    unix sockets: plugin registration, device lists and PodResources
    node       both, and the agent's process on them
    process    what a process costs, as the kernel counts it

For benchmarks of the agent alone. What Kubernetes does is tested on the real binaries, never on these.
"""
