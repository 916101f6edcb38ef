"""Builders and fakes of the agent's tests."""
