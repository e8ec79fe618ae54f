"""Generates typed Python from proto files. Never imports ``sdk``; the code it writes does."""
