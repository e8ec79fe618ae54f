"""Changes of a proto that break the clients of the previous version."""
