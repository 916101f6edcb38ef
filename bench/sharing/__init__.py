"""Jobs on shared GPUs, and what a run with them costs."""
