"""Detection of changes to a proto that break clients of the previous version."""
