"""Measures how long a pod takes from its creation until its container runs."""
