"""Descriptors: gathering them, asking a server for them, and comparing two versions."""
