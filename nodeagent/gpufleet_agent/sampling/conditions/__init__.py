"""Conditions of a device that readings show."""
