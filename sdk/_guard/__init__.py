"""Checks of the other end of a connection between our own parts.

On one node it is a process of the same user; between nodes Ray's TLS or token shows it.
"""
