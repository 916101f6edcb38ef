"""What the agent keeps on its node, so that a restart forgets no fault that stands."""
