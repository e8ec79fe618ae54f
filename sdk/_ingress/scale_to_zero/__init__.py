"""Calls to deployments that are scaled to zero: they wait while a replica starts."""
