"""The command ``sdk check``."""
