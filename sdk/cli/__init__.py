"""The ``sdk`` command: one small module a command, loaded when it is called."""
