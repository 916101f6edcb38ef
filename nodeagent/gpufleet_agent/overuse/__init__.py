"""Who uses more memory of a shared device than was promised. Nothing caps a container there: it can only be named."""
