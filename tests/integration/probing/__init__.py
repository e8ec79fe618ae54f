"""Behaviour of handlers as clients see it, tested with the probes."""
