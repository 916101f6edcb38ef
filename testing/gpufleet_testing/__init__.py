"""Builders and fakes that tests share: typed, importable, never part of a release."""
