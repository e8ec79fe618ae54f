"""The servers that are compared. Each is a program that says on its standard output, in JSON, where it listens.

It ends when its standard input does. ``ours.py`` also takes commands there.
"""
