"""What clients see of a handler, shown with the probes."""
