"""Builders for tests of the command line: files as kubectl prints them, and runs of commands."""
