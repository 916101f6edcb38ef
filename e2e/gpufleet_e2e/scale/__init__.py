"""Fleets of nodes that exist only as objects: kwok plays kubelets, and one process plays the agents."""
