"""Faults that end-to-end tests inject.

fault_injection    admission policies that stop the operator at one exact step
network_partition  drops the packets from one pod to the apiserver
other_plugin       a second device plugin for the same GPUs
"""
