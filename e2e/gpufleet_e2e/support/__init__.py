"""What the end-to-end tests share: an installed fleet, a namespace per test, and ways to watch and to disturb it.

    fleet      `Fleet`: the cluster with the chart installed; finds operator and agents, stops and restarts them
    room       `Room`: one test's namespace; applies workloads, waits for them, proves them, and clears up
    awaiting   `eventually`: waits for a condition and says what was seen last
    gpus       the simulated GPUs of a node, changed while everything runs
    obstacles  admission policies of the tests' own, which hold the operator at one exact step
    watchdog   reads the kubelets all the time and remembers every device that it saw in two hands

Nothing here imports the product: what it knows of the API comes from
`gpufleet_e2e.proof.contract` and the documentation.
"""
