"""Descriptors of proto files: collect them, fetch them from a server, and compare two versions."""
