"""The command ``sdk run``."""
