"""Scale to zero: calls wait at the gate while the activator starts a replica."""
