"""The fault file: its format, how it is stored, and when it is written."""
