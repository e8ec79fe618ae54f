"""The compared servers. Each is a program that reports its port on its standard output, in JSON.

It ends when its standard input is closed. ``ours.py`` also takes commands there.
"""
