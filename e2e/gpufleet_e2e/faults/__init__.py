"""Faults that end-to-end tests inject.

decision_audit     watches who decides, and what happens to pods
fault_injection    admission policies that stop the operator at one exact step
leader             finds the process of the operator that holds the Lease
network_partition  drops the packets from one pod to the apiserver
other_plugin       a second device plugin for the same GPUs
"""
