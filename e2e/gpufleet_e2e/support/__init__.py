"""Shared parts of the end-to-end tests: the installed chart, a namespace per test, and waiting.

    fleet     `Fleet`: the cluster with the chart installed; operator, agents, and simulated GPUs
    sandbox   `TestNamespace`: one test's namespace; applies workloads, waits for them, verifies them
    polling   `eventually`: waits for a condition; its error contains the last state
    gpus      simulated GPUs of a node; their readings change while everything runs
    watchdog  polls the kubelets and records every device with two holders

Nothing here imports the product's API types: names of the API come from `gpufleet_e2e.proof.contract`.
"""
