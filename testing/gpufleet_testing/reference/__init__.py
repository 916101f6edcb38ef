"""Generates the tables of docs/reference from the code, so that pages and code cannot differ."""
