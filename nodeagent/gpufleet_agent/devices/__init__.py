"""The node's hardware, behind one small interface."""
