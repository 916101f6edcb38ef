"""Checks that the chart runs as hooks of helm: after an installation, and before an uninstallation."""
