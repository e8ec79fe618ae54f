"""Rules that a decorated class must follow to fit its proto services."""
