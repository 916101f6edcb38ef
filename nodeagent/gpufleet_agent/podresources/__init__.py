"""Reads from the kubelet's PodResources API which container holds which device."""
